{{/* What Pod Security `restricted` asks of a pod, and more. */}}
{{- define "eagleray.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "eagleray.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Environment that Ray Serve must be started with; serving/environment.py owns it, a test holds this copy. */}}
{{- define "eagleray.fastEnv" -}}
RAY_SERVE_ENABLE_HA_PROXY: "1"
RAY_SERVE_THROUGHPUT_OPTIMIZED: "1"
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH: serving.fast_path.middlewares
RAY_SERVE_HAPROXY_METRICS_ENABLED: "0"
RAY_SERVE_HAPROXY_RETRY_ON: |-
  conn-failure empty-response junk-response
  option http-buffer-request
  timeout http-request 30s
  option http-ignore-probes
  http-error status 408 content-type application/json string '{"error": {"type": "timeout", "message": "the body must arrive within 30 s, but is late", "field": null}}'
RAY_SERVE_HAPROXY_RETRIES: "10"
RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S: "60"
RAY_USAGE_STATS_ENABLED: "0"
{{- end -}}

{{- define "eagleray.writable" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/eagleray}
{{- end -}}

{{- define "eagleray.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The Secrets that a pod reads as files, by the folder of /etc/eagleray where they are: replicas check, drivers sign. */}}
{{- define "eagleray.secretFiles" -}}
{{- $values := .root.Values -}}
{{- $secrets := dict -}}
{{- if and (eq .component "serving") (eq .role "worker") -}}
{{- $secrets = dict "keys" $values.serving.keysSecret "signing" $values.signing.existingSecret "capture" $values.serving.capture.keySecret -}}
{{- else if and (ne .component "serving") (eq .role "head") -}}
{{- $secrets = dict "signing" $values.signing.existingSecret -}}
{{- end -}}
{{- range $folder, $secret := $secrets }}{{ if $secret }}
{{ $folder }}: {{ $secret }}
{{- end }}{{ end -}}
{{- end -}}

{{/* The one template of all Ray pods.
     root; component: serving, tuning or runs; role: head or worker; group: its values; autoscaled: beside an autoscaler. */}}
{{- define "eagleray.pod" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "eagleray.labels" . | nindent 4 }}
    eagleray/role: {{ .role }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $annotations := dict -}}
  {{- if eq .role "head" }}{{ $annotations = dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" }}{{ end -}}
  {{- with merge (dict) $values.podAnnotations $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "eagleray.serviceAccount" .root }}
  # Only the autoscaler, beside the head, calls the Kubernetes API.
  automountServiceAccountToken: {{ and (eq .role "head") .autoscaled }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add 30 (ternary $values.serving.drainSeconds 0 (eq .component "serving")) }}
  {{- with include "eagleray.pullSecrets" .root }}
  {{- . | nindent 2 }}
  {{- end }}
  securityContext:
    {{- include "eagleray.podSecurity" . | nindent 4 }}
  {{- with include "eagleray.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ printf "ray-%s" .role }}
      {{- include "eagleray.container" . | nindent 6 }}
  volumes:
    - {name: tmp, emptyDir: {}}
    - {name: home, emptyDir: {}}
    {{- range $folder, $secret := include "eagleray.secretFiles" . | fromYaml }}
    - {name: {{ $folder }}, secret: {secretName: {{ $secret }}}}
    {{- end }}
    {{- if and (eq .role "head") (ne .component "serving") }}
    - name: experiments
      configMap:
        name: {{ include "eagleray.name" (dict "root" .root "suffix" "experiments") }}
        optional: true
    {{- end }}
{{- end -}}

{{/* How long Ray moves replicas elsewhere once a pod is told to end: only serving workers have some. */}}
{{- define "eagleray.drain" -}}
{{- if and (eq .component "serving") (eq .role "worker") }}{{ .root.Values.serving.drainSeconds }}{{ else }}0{{ end -}}
{{- end -}}

{{- define "eagleray.container" -}}
{{- $values := .root.Values -}}
image: {{ include "eagleray.image" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
securityContext:
  {{- include "eagleray.containerSecurity" . | nindent 2 }}
env:
  {{- range $name, $value := include "eagleray.fastEnv" . | fromYaml }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
  {{- if eq .component "serving" }}
  - name: MALLOC_ARENA_MAX
    value: "2"
  {{- end }}
  {{- if and $values.serving.grpc.enabled (eq .component "serving") }}
  - name: RAY_SERVE_GRPC_MAX_MESSAGE_SIZE
    value: "16777216"
  {{- end }}
  - name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
    value: {{ include "eagleray.drain" . | quote }}
  {{- include "eagleray.storageEnv" .root | nindent 2 }}
  {{- if and $values.signing.existingSecret (ne .component "serving") (eq .role "head") }}
  - name: EAGLERAY_SIGNING_KEY_FILE
    value: /etc/eagleray/signing/signing-key
  {{- end }}
  {{- if and $values.monitoring.tracing.endpoint (eq .component "serving") }}
  - name: OTEL_EXPORTER_OTLP_ENDPOINT
    value: {{ $values.monitoring.tracing.endpoint | quote }}
  - name: OTEL_TRACES_SAMPLER
    value: parentbased_traceidratio
  - name: OTEL_TRACES_SAMPLER_ARG
    value: {{ $values.monitoring.tracing.share | quote }}
  {{- end }}
  {{- range $values.ray.env }}
  - {{ include "eagleray.variable" . }}
  {{- end }}
ports:
  {{- include "eagleray.ports" . | nindent 2 }}
resources:
  {{- include "eagleray.resources" . | nindent 2 }}
{{- include "eagleray.probes" . | nindent 0 }}
{{- if eq .component "serving" }}
lifecycle:
  {{- if eq .role "worker" }}
  preStop: # the Service forgets the pod before Ray is told to end
    exec: {command: [sleep, "5"]}
  {{- else }}
  preStop: # workers that end with it hand over, for which they need it: 5 s, their drain, and 10 s to spare
    exec: {command: [sleep, {{ add 15 $values.serving.drainSeconds | quote }}]}
  {{- end }}
{{- end }}
volumeMounts:
  {{- include "eagleray.writable" . | nindent 2 }}
  {{- range $folder, $_ := include "eagleray.secretFiles" . | fromYaml }}
  - {name: {{ $folder }}, mountPath: /etc/eagleray/{{ $folder }}, readOnly: true}
  {{- end }}
  {{- if and (eq .role "head") (ne .component "serving") }}
  - {name: experiments, mountPath: /experiments, readOnly: true}
  {{- end }}
{{- end -}}

{{/* Fields of values, as JSON, without those that are empty: Go's types leave them out as well (docs/adr/0012). */}}
{{- define "eagleray.filled" -}}
{{- $filled := dict -}}
{{- range $name, $value := . }}{{ if ne (toString $value) "" }}{{ $_ := set $filled $name $value }}{{ end }}{{ end -}}
{{- toJson $filled -}}
{{- end -}}

{{/* An environment variable of values, as Go writes it: a resource's divisor is always there. */}}
{{- define "eagleray.variable" -}}
{{- $variable := deepCopy . -}}
{{- with ($variable.valueFrom | default dict).resourceFieldRef -}}
{{- $_ := set . "divisor" (include "eagleray.quantity" (.divisor | default "0")) -}}
{{- end -}}
{{- include "eagleray.filled" $variable -}}
{{- end -}}

{{- define "eagleray.ports" -}}
- {name: metrics, containerPort: 8080, protocol: TCP}
{{- if eq .role "head" }}
- {name: gcs-server, containerPort: 6379, protocol: TCP}
- {name: dashboard, containerPort: 8265, protocol: TCP}
- {name: client, containerPort: 10001, protocol: TCP}
{{- end }}
{{- if eq .component "serving" }}
- {name: serve, containerPort: 8000, protocol: TCP}
{{- if .root.Values.serving.grpc.enabled }}
- {name: grpc, containerPort: 9000, protocol: TCP}
{{- end }}
{{- if eq .role "worker" }}
- {name: model-metrics, containerPort: 8001, protocol: TCP}
{{- end }}
{{- end }}
{{- end -}}

{{/* Requests equal limits but for CPU: Ray counts on what it is promised. */}}
{{- define "eagleray.resources" -}}
{{- $memory := include "eagleray.quantity" .group.memory -}}
requests:
  cpu: {{ default .group.cpus .group.cpuRequest | include "eagleray.quantity" | quote }}
  memory: {{ $memory | quote }}
  {{- with int .group.gpus }}
  {{ $.root.Values.gpu.resource }}: {{ include "eagleray.quantity" . | quote }}
  {{- end }}
limits:
  cpu: {{ include "eagleray.quantity" .group.cpus | quote }}
  memory: {{ $memory | quote }}
  {{- with int .group.gpus }}
  {{ $.root.Values.gpu.resource }}: {{ include "eagleray.quantity" . | quote }}
  {{- end }}
{{- end -}}

{{/* By HTTP, and without a token: Ray leaves these paths open. KubeRay's own probes need wget in the image. */}}
{{- define "eagleray.probes" -}}
{{- $alive := dict "path" "/api/local_raylet_healthz" "port" 52365 -}}
{{- $ready := dict "httpGet" $alive "periodSeconds" 5 "failureThreshold" (ternary 2 6 (eq .component "serving")) -}}
{{- if eq .role "head" -}}
{{- $_ := set $ready "httpGet" (dict "path" "/api/gcs_healthz" "port" 8265) -}}
{{- else if eq .component "serving" -}}
{{- /* A replica waits for this probe before Serve calls it running (docs/adr/0014). */ -}}
{{- $ready = dict "httpGet" (dict "path" "/readyz" "port" 8001) "periodSeconds" 1 "failureThreshold" 10 -}}
{{- end -}}
startupProbe:
  httpGet: {{ toJson $alive }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 150
livenessProbe:
  httpGet: {{ toJson $alive }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 12
  {{- if and (eq .component "serving") (eq .role "head") }}
  terminationGracePeriodSeconds: 15 # a head that hangs has nothing to hand over
  {{- end }}
readinessProbe:
  httpGet: {{ toJson $ready.httpGet }}
  periodSeconds: {{ $ready.periodSeconds }}
  timeoutSeconds: 5
  failureThreshold: {{ $ready.failureThreshold }}
{{- end -}}

{{- define "eagleray.placement" -}}
{{- $values := .root.Values -}}
{{- with .group.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .group.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- $tolerations := .group.tolerations -}}
{{- if .group.gpus }}{{ $tolerations = concat $tolerations $values.gpu.tolerations }}{{ end -}}
{{- if .group.spot }}{{ $tolerations = concat $tolerations $values.spot.tolerations }}{{ end -}}
{{- with $tolerations }}
tolerations:
  {{- range . }}
  - {{ include "eagleray.filled" . }}
  {{- end }}
{{- end }}
{{- if $values.spot.nodeLabels }}
affinity:
  nodeAffinity:
    {{- if .group.spot }}
    preferredDuringSchedulingIgnoredDuringExecution:
      {{- range $label, $value := $values.spot.nodeLabels }}
      - weight: 100
        preference:
          matchExpressions:
            - {key: {{ $label }}, operator: In, values: [{{ $value | quote }}]}
      {{- end }}
    {{- else }}
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            {{- range $label, $value := $values.spot.nodeLabels }}
            - {key: {{ $label }}, operator: NotIn, values: [{{ $value | quote }}]}
            {{- end }}
    {{- end }}
{{- end }}
{{- if and (eq .component "serving") (eq .role "worker") $values.serving.topologySpread }}
topologySpreadConstraints:
  {{- $labels := dict "labelSelector" (dict "matchLabels" (merge (dict "eagleray/role" "worker") (include "eagleray.selector" . | fromYaml))) }}
  {{- range $values.serving.topologySpread }}
  - {{ merge (dict) . $labels | toJson }}
  {{- end }}
{{- end }}
{{- end -}}
