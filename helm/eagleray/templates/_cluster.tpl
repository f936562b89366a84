{{/* A RayClusterSpec, in the form in which the operator writes it (docs/adr/0012).
     root; component; head: values; workers: list of groups; live: the groups of the cluster that is there, if any. */}}
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
  {{- $limits := dict "cpu" (include "eagleray.quantity" .cpu) "memory" (include "eagleray.quantity" .memory) | toJson }}
  resources: {requests: {{ $limits }}, limits: {{ $limits }}}
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
  {{- $live := dict }}
  {{- range .live }}{{ $_ := set $live .groupName . }}{{ end }}
  {{- range $groups }}
  {{- $scaled := get $live .name | default dict }}
  - groupName: {{ .name }}
    replicas: {{ default 0 $scaled.replicas | max .min | min .max }}
    minReplicas: {{ .min }}
    maxReplicas: {{ .max }}
    numOfHosts: 1
    {{- if or (hasKey $scaled "priority") (semverCompare ">=1.7" (printf "%s.0" $values.kuberay.version)) }}
    priority: 0
    {{- end }}
    scaleStrategy: {{ $scaled.scaleStrategy | default dict | toJson }}
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
{{- if .embedded }}
gcsFaultToleranceOptions:
  backend: rocksdb
  storage:
    size: {{ include "eagleray.quantity" .size | quote }}
    {{- with .storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
{{- else if .redisAddress }}
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
