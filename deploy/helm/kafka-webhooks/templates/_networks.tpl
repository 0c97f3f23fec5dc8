{{/* Peers and ports of one rule; an empty list of peers is any address. The argument is (list direction peers ports). */}}
{{- define "kafka-webhooks.rule" -}}
- ports:
    {{- range index . 2 }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with index . 1 }}
  {{ index $ 0 }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "kafka-webhooks.dnsRule" -}}
{{- with .Values.networkPolicy.dns -}}
- ports:
    {{- range .ports }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "kafka-webhooks.databaseRule" -}}
{{- $ports := .Values.networkPolicy.database.ports }}
{{- range compact (list .Values.database.url .Values.migration.database.url) }}
{{- with regexFind `@(\[[^]]*\]|[^/?:\[]+):[0-9]+` . }}
{{- $ports = append $ports (regexFind "[0-9]+$" . | int) }}
{{- end }}
{{- end }}
{{- include "kafka-webhooks.rule" (list "to" .Values.networkPolicy.database.to ($ports | uniq)) }}
{{- end }}

{{/* Kafka's ports are those of the bootstrap servers, unless others are named. */}}
{{- define "kafka-webhooks.kafkaRule" -}}
{{- $ports := .Values.networkPolicy.kafka.ports }}
{{- if not $ports }}
{{- range splitList "," .Values.kafka.bootstrapServers }}
{{- $ports = append $ports (regexFind "[0-9]+$" (trim .) | default "9092" | int) }}
{{- end }}
{{- end }}
{{- include "kafka-webhooks.rule" (list "to" .Values.networkPolicy.kafka.to ($ports | uniq)) }}
{{- end }}

{{/* To the servers of URLs, on the ports that these name or their schemes have. The argument is (list peers URLs). */}}
{{- define "kafka-webhooks.urlRule" -}}
{{- $ports := list }}
{{- range splitList "," (index . 1 | compact | join ",") | compact }}
{{- $port := regexFind ":[0-9]+(/|$)" (trim . | replace "://" " ") | trimPrefix ":" | trimSuffix "/" }}
{{- $ports = append $ports ($port | default (ternary 80 443 (hasPrefix "http:" (trim .))) | int) }}
{{- end }}
{{- with $ports }}
{{- include "kafka-webhooks.rule" (list "to" (index $ 0).to (. | uniq)) }}
{{- end }}
{{- end }}

{{/* From pods; a Service that leads out of the cluster was opened on purpose, so from anywhere, unless peers are named. */}}
{{- define "kafka-webhooks.apiRule" -}}
{{- $inside := ternary (list (dict "namespaceSelector" dict)) list (eq .Values.api.service.type "ClusterIP") }}
{{- include "kafka-webhooks.rule" (list "from" (.Values.networkPolicy.api.from | default $inside) (list "http")) }}
{{- end }}

{{- define "kafka-webhooks.receiverRule" -}}
{{- with .Values.networkPolicy }}
{{- if or $.Values.egress.proxy (include "kafka-webhooks.keys" $ | fromJson).proxyUrl }}
{{- include "kafka-webhooks.rule" (list "to" .proxy.to .proxy.ports) }}
{{- else }}
{{- $peers := include "kafka-webhooks.publicNetworks" $ | fromYamlArray }}
{{- $ports := .receivers.ports }}
{{- include "kafka-webhooks.rule" (list "to" $peers (ternary (append $ports 80 | uniq) $ports $.Values.egress.allowHttp)) }}
{{- with $.Values.egress.allowNetworks }}
{{- $allowed := list }}
{{- range . }}
{{- $allowed = append $allowed (dict "ipBlock" (dict "cidr" .)) }}
{{- end }}
{{- /* Also over plain http, and on any port: services in a cluster have theirs. */}}
- to:
    {{- toYaml $allowed | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
What consumer/sending/egress.py takes for public; tests/deploy compares them. Of IPv6 this leaves out 6to4 and Teredo,
which the service judges by the address inside. NAT64 has the same exceptions as IPv4, embedded and written as RFC 5952
has it: the API server warns of any other form.
*/}}
{{- define "kafka-webhooks.publicNetworks" -}}
{{- $private := list "0.0.0.0/8" "10.0.0.0/8" "100.64.0.0/10" "127.0.0.0/8" "168.63.129.16/32" "169.254.0.0/16" "172.16.0.0/12" "192.0.0.0/24" "192.0.2.0/24" "192.88.99.0/24" "192.168.0.0/16" "198.18.0.0/15" "198.51.100.0/24" "203.0.113.0/24" "224.0.0.0/3" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      {{- toYaml $private | nindent 6 }}
- ipBlock:
    cidr: 2000::/3
    except:
      - 2001::/23
      - 2001:db8::/32
      - 2002::/16
      - 3fff::/20
- ipBlock:
    cidr: 64:ff9b::/96
    except:
      {{- range $private }}
      {{- $network := splitList "/" . }}
      {{- $byte := splitList "." (index $network 0) }}
      {{- $high := add (mul 256 (index $byte 0)) (index $byte 1) }}
      {{- $low := add (mul 256 (index $byte 2)) (index $byte 3) }}
      - 64:ff9b::{{ if $high }}{{ printf "%x:%x" $high $low }}{{ end }}/{{ add 96 (index $network 1 | int) }}
      {{- end }}
{{- end }}
