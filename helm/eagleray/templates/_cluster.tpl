{{/* A RayClusterSpec. root; component; head: values; workers: list of groups. */}}
{{- define "eagleray.cluster" -}}
{{- $values := .root.Values -}}
{{- $groups := list -}}
{{- $autoscaled := false -}}
{{- range .workers -}}
{{- $group := merge (dict) . (include "eagleray.groupDefaults" . | fromYaml) -}}
{{- $groups = append $groups $group -}}
{{- if gt (int $group.max) (int $group.min) }}{{ $autoscaled = true }}{{ end -}}
{{- end -}}
{{- $pod := dict "root" .root "component" .component "autoscaled" $autoscaled -}}
rayVersion: {{ $values.ray.version | quote }}
{{- if $values.ray.tokenAuth }}
authOptions: {mode: token}
{{- end }}
enableInTreeAutoscaling: {{ $autoscaled }}
{{- if $autoscaled }}
{{- with $values.ray.autoscaler }}
autoscalerOptions:
  version: {{ .version }}
  upscalingMode: {{ .upscalingMode }}
  idleTimeoutSeconds: {{ .idleSeconds }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  resources:
    requests: {cpu: {{ .cpu | quote }}, memory: {{ .memory }}}
    limits: {cpu: {{ .cpu | quote }}, memory: {{ .memory }}}
  securityContext:
    {{- include "eagleray.containerSecurity" . | nindent 4 }}
  volumeMounts:
    {{- include "eagleray.writable" . | nindent 4 }}
{{- end }}
{{- end }}
{{- if eq .component "serving" }}
{{- include "eagleray.faultTolerance" .root }}
{{- end }}
headGroupSpec:
  rayStartParams:
    dashboard-host: 0.0.0.0
    num-cpus: "0" # neither replicas nor trials run on the head
    num-gpus: "0"
  template:
    {{- include "eagleray.pod" (merge (dict "role" "head" "group" (merge (dict) .head (include "eagleray.groupDefaults" . | fromYaml))) $pod) | nindent 4 }}
workerGroupSpecs:
  {{- range $groups }}
  - groupName: {{ .name }}
    replicas: {{ .min }}
    minReplicas: {{ .min }}
    maxReplicas: {{ .max }}
    rayStartParams:
      num-cpus: {{ .cpus | quote }}
    template:
      {{- include "eagleray.pod" (merge (dict "role" "worker" "group" .) $pod) | nindent 6 }}
  {{- end }}
{{- end -}}

{{/* What a group's values leave out. */}}
{{- define "eagleray.groupDefaults" -}}
cpuRequest: ""
gpus: 0
spot: false
nodeSelector: {}
tolerations: []
priorityClassName: ""
{{- end -}}

{{- define "eagleray.faultTolerance" -}}
{{- with .Values.ray.faultTolerance }}
{{- if .redisAddress }}
gcsFaultToleranceOptions:
  redisAddress: {{ .redisAddress | quote }}
  {{- if .existingSecret }}
  redisPassword:
    valueFrom:
      secretKeyRef: {name: {{ .existingSecret }}, key: {{ .passwordKey }}}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}
