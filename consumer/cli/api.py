"""`kafka-webhooks api`."""


def api() -> None:
    """Serve the admin HTTP API until SIGTERM.

    /openapi.json describes it. Without API_TOKEN it serves requests from this machine only.

    \b
    Example:
      kafka-webhooks api &
      curl -X POST localhost:8080/register-webhook -H 'content-type: application/json' \\
        -d '{"url": "https://example.com/hooks", "eventType": "user.created"}'
    """
    import structlog

    from consumer.api.app import create_app
    from consumer.cli.console import configure
    from consumer.config.environment import check, environment, load
    from consumer.config.settings import ApiSettings, DatabaseSettings, RuleSettings
    from consumer.crypto.vault import Vault
    from consumer.database.engine import create_engine
    from consumer.http.server import listen, serve
    from consumer.matching.destinations import resolving_rules_of

    values = environment()
    check((ApiSettings, DatabaseSettings, RuleSettings), values)
    configure()
    settings = load(ApiSettings, values)
    token = settings.api_token.get_secret_value() if settings.api_token else None
    database, rules = load(DatabaseSettings, values), resolving_rules_of(load(RuleSettings, values))
    app = create_app(create_engine(database), token, Vault(database.encryption_keys), rules)
    listener = listen(settings.bind_host, settings.api_port)
    host, port = listener.getsockname()[:2]
    structlog.get_logger(__name__).info("listening", url=f"http://{host}:{port}", token=token is not None)
    serve(app, listener)
