{{/* Where S3 is, and by which keys: environment variables of every pod that uses it. */}}
{{- define "eagleray.storageSecret" -}}
{{- if .Values.storage.existingSecret -}}
{{ .Values.storage.existingSecret }}
{{- else if .Values.objectStore.embedded -}}
{{ include "eagleray.store" . }}
{{- end -}}
{{- end -}}

{{- define "eagleray.storageEndpoint" -}}
{{- if .Values.objectStore.embedded -}}
http://{{ include "eagleray.store" . }}.{{ .Release.Namespace }}.svc:8333
{{- else -}}
{{ .Values.storage.endpoint }}
{{- end -}}
{{- end -}}

{{/* The port at which S3 answers, for policies. */}}
{{- define "eagleray.storagePort" -}}
{{- include "eagleray.port" (include "eagleray.storageEndpoint" .) -}}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "eagleray.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" (default "" $url.host) | trimPrefix ":" -}}
{{- if $port }}{{ $port }}{{ else if eq $url.scheme "http" }}80{{ else }}443{{ end -}}
{{- end -}}

{{- define "eagleray.storageKeys" -}}
{{- with include "eagleray.storageSecret" . -}}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $.Values.storage.accessKeyIdKey }}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $.Values.storage.secretAccessKeyKey }}}
{{- end -}}
{{- end -}}

{{- define "eagleray.storageEnv" -}}
- name: AWS_REGION
  value: {{ .Values.storage.region | quote }}
{{- with include "eagleray.storageEndpoint" . }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- with include "eagleray.storageKeys" . }}
{{ . }}
{{- end }}
{{- end -}}
