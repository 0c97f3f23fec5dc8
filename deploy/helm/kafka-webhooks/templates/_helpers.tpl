{{/* Names and labels. 52 characters leave room for the suffixes of a Job's pods. */}}
{{- define "kafka-webhooks.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "kafka-webhooks.fullname" -}}
{{- $name := include "kafka-webhooks.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "kafka-webhooks.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "kafka-webhooks.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* The keys of the Secret, as JSON: none if something else writes the files that `settings` names. */}}
{{- define "kafka-webhooks.keys" -}}
{{- ternary .Values.secret.keys dict (not (empty .Values.secret.name)) | toJson }}
{{- end }}

{{/* The labels that never change; the argument is (list $ component). */}}
{{- define "kafka-webhooks.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "kafka-webhooks.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Its own annotations win over common ones. The argument is (list $ component labels annotations). */}}
{{- define "kafka-webhooks.metadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "kafka-webhooks.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
  {{- range list $root.Values.commonLabels (index . 2) | compact }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := dict }}
{{- range list $root.Values.commonAnnotations (index . 3) }}
{{- range $name, $value := . }}
{{- $_ := set $annotations $name $value }}
{{- end }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "kafka-webhooks.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value of any type as quoted text. Helm holds numbers as floats, of which toString writes a million as 1e+06. */}}
{{- define "kafka-webhooks.text" -}}
{{ ternary . (toJson .) (kindIs "string" .) | quote }}
{{- end }}
