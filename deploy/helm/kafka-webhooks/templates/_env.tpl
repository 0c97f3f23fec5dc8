{{/*
The variables of each command, written into the pod: a changed value makes new pods, so that no checksum of a ConfigMap
is needed. Each argument is the root.
*/}}
{{- define "kafka-webhooks.kafkaEnv" -}}
- name: KAFKA_BOOTSTRAP_SERVERS
  value: {{ .Values.kafka.bootstrapServers | quote }}
- name: KAFKA_GROUP_ID
  value: {{ .Values.kafka.groupId | quote }}
- name: KAFKA_TOPICS
  value: {{ join "," .Values.kafka.topics | quote }}
{{- range $property, $value := .Values.kafka.properties }}
- name: {{ printf "KAFKA_%s" ($property | upper | replace "." "_") }}
  value: {{ include "kafka-webhooks.text" $value }}
{{- end }}
{{- range $property, $key := .Values.kafka.secretProperties }}
- name: {{ printf "KAFKA_%s" ($property | upper | replace "." "_") }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.secret.name }}
      key: {{ $key }}
{{- end }}
{{- end }}

{{/* The argument is a dict: root, url, urlKey, passwordKey. */}}
{{- define "kafka-webhooks.databaseEnv" -}}
{{- if .urlKey }}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .root.Values.secret.name }}
      key: {{ .urlKey }}
{{- else if or .url (not .root.Values.settings.DATABASE_URL_FILE) }}
- name: DATABASE_URL
  value: {{ required "database.url is empty: set it, or secret.keys.databaseUrl" .url | quote }}
{{- with .passwordKey }}
- name: DATABASE_PASSWORD_FILE
  value: {{ include "kafka-webhooks.secretPath" . }}
{{- end }}
{{- end }}
{{- with .root.Values.database.schema }}
- name: DATABASE_SCHEMA
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The account of workers and of the API. */}}
{{- define "kafka-webhooks.accountEnv" -}}
{{- $keys := include "kafka-webhooks.keys" . | fromJson }}
{{- include "kafka-webhooks.databaseEnv" (dict "root" $ "url" .Values.database.url "urlKey" $keys.databaseUrl "passwordKey" $keys.databasePassword) }}
{{- with $keys.encryptionKey }}
- name: WEBHOOK_ENCRYPTION_KEY_FILE
  value: {{ include "kafka-webhooks.secretPath" . }}
{{- end }}
{{- end }}

{{- define "kafka-webhooks.ruleEnv" -}}
{{- with .Values.egress.allowNetworks }}
- name: WEBHOOK_ALLOW_NETWORKS
  value: {{ join "," . | quote }}
{{- end }}
{{- if .Values.egress.allowHttp }}
- name: WEBHOOK_ALLOW_HTTP
  value: "true"
{{- end }}
{{- $keys := include "kafka-webhooks.keys" . | fromJson }}
{{- if $keys.proxyUrl }}
- name: WEBHOOK_PROXY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.secret.name }}
      key: {{ $keys.proxyUrl }}
{{- else if .Values.egress.proxy }}
- name: WEBHOOK_PROXY
  value: {{ .Values.egress.proxy | quote }}
{{- end }}
{{- end }}

{{/* Variables that users add. They come last: of two variables with one name the last counts. */}}
{{- define "kafka-webhooks.extraEnv" -}}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ include "kafka-webhooks.text" $value }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Variables of a worker, and of `check`, which reads the same ones. */}}
{{- define "kafka-webhooks.workerEnv" -}}
{{ include "kafka-webhooks.kafkaEnv" . }}
{{ include "kafka-webhooks.accountEnv" . }}
{{- with (include "kafka-webhooks.keys" . | fromJson).webhookSecret }}
- name: WEBHOOK_SECRET_FILE
  value: {{ include "kafka-webhooks.secretPath" . }}
{{- end }}
- name: WEBHOOK_DRAIN
  value: {{ printf "%ds" (int .Values.worker.drainSeconds) }}
- name: OPS_PORT
  value: "9464"
{{- include "kafka-webhooks.ruleEnv" . }}
{{- include "kafka-webhooks.extraEnv" . }}
{{- end }}

{{- define "kafka-webhooks.secretPath" -}}
/run/secrets/kafka-webhooks/{{ . }}
{{- end }}
