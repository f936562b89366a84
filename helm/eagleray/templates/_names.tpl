{{/* A name from the release's: a DNS-1035 label of at most `limit` letters, whatever the release is called.
     A name that had to be changed ends with a hash of the whole, so that two releases never meet.
     Limits: KubeRay appends -xxxxx to a RayService or RayJob (47 at most), -head-svc to a RayCluster (53),
     Kubernetes a hash to the label of a StatefulSet's pods (52). */}}
{{- define "eagleray.name" -}}
{{- $full := .root.Release.Name -}}
{{- with .suffix }}{{ $full = printf "%s-%s" $full . }}{{ end -}}
{{- $limit := int (default 53 .limit) -}}
{{- $fit := $full | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $fit) }}{{ $fit = printf "r%s" $fit }}{{ end -}}
{{- if or (ne $fit $full) (gt (len $fit) $limit) -}}
{{- printf "%s-%s" ($fit | trunc (int (sub $limit 7)) | trimSuffix "-") (sha256sum $full | trunc 6) -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end -}}

{{/* The RayService; the Service with its traffic is this name and -serve-svc. */}}
{{- define "eagleray.service" -}}
{{- include "eagleray.name" (dict "root" . "limit" 47) -}}
{{- end -}}

{{- define "eagleray.tuning" -}}
{{- include "eagleray.name" (dict "root" . "suffix" "tuning") -}}
{{- end -}}

{{- define "eagleray.store" -}}
{{- include "eagleray.name" (dict "root" . "suffix" "store" "limit" 52) -}}
{{- end -}}

{{- define "eagleray.serviceAccount" -}}
{{- default (include "eagleray.name" (dict "root" .)) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "eagleray.url" -}}
http://{{ include "eagleray.service" . }}-serve-svc.{{ .Release.Namespace }}.svc:8000
{{- end -}}

{{/* The Service of gRPC, which is ours: KubeRay's has no port but `serve`. */}}
{{- define "eagleray.grpc" -}}
{{- include "eagleray.name" (dict "root" . "suffix" "grpc") -}}
{{- end -}}

{{/* Labels by which policies, budgets and monitors select: KubeRay leaves these two alone. */}}
{{- define "eagleray.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "eagleray.labels" -}}
{{ include "eagleray.selector" . }}
app.kubernetes.io/name: eagleray
{{- end -}}

{{- define "eagleray.chartLabels" -}}
{{ include "eagleray.labels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "eagleray.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}
