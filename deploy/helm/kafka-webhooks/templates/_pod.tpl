{{/* The common parts of all pods. The argument is (list $ serviceAccountName component's values). */}}
{{- define "kafka-webhooks.pod" -}}
{{- $root := index . 0 -}}
{{- $own := index . 2 -}}
serviceAccountName: {{ index . 1 }}
automountServiceAccountToken: false
# Services in the namespace would become variables, and one named kafka would set properties of Kafka's client.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
  {{- with $root.Values.pod.securityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "hostAliases" "initContainers" }}
{{- with get $own $field | default (get $root.Values.pod $field) }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Over zones and nodes as well as it can, unless the component has constraints. The argument is (list $ component). */}}
{{- define "kafka-webhooks.spread" -}}
topologySpreadConstraints:
  {{- $selector := include "kafka-webhooks.selector" . }}
  {{- with (get (index . 0).Values (index . 1)).topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
  {{- end }}
{{- end }}

{{/* A slow node gets two minutes to load the program; liveness counts from then on. The argument is the port's name. */}}
{{- define "kafka-webhooks.startupProbe" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: {{ . }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
{{- end }}

{{- define "kafka-webhooks.container" -}}
image: {{ include "kafka-webhooks.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: secrets
    mountPath: /run/secrets/kafka-webhooks
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
Files of the Secret, and only those that the command reads. A whole directory is mounted, not single files, so that a
new password of the database arrives. The argument is (list $ keys).
*/}}
{{- define "kafka-webhooks.volumes" -}}
{{- $root := index . 0 -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- with index . 1 | compact | uniq }}
      - secret:
          name: {{ $root.Values.secret.name }}
          items:
            {{- range . }}
            - key: {{ . }}
              path: {{ . }}
            {{- end }}
      {{- else }}
      []
      {{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Of the Secret, as it is at an installation or upgrade: another version makes new pods. Without a name `lookup` would
list all Secrets, and their version is another one each time.
*/}}
{{- define "kafka-webhooks.annotations" -}}
{{- if .Values.secret.name }}
{{- with lookup "v1" "Secret" .Release.Namespace .Values.secret.name }}
kafka-webhooks/secret-version: {{ .metadata.resourceVersion | quote }}
{{- end }}
{{- end }}
{{- with .Values.pod.annotations }}
{{ toYaml . }}
{{- end }}
{{- end }}
