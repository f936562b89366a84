{{/* A RayJobSpec without an entrypoint: what all runs of the release have in common. */}}
{{- define "eagleray.run" -}}
{{- $runs := .Values.runs -}}
submissionMode: K8sJobMode
# A retry deletes the cluster, also one that is shared (kuberay#4527); newer operators refuse it.
backoffLimit: {{ ternary $runs.retries 0 (eq $runs.cluster "own") }}
{{- with int $runs.deadlineSeconds }}
activeDeadlineSeconds: {{ . }}
{{- end }}
{{- if eq $runs.cluster "own" }}
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ $runs.keepSeconds }}
rayClusterSpec:
  {{- include "eagleray.cluster" (dict "root" . "component" "runs" "head" .Values.tuning.head "workers" .Values.tuning.workers) | nindent 2 }}
{{- else }}
clusterSelector:
  ray.io/cluster: {{ include "eagleray.tuning" . }}
{{- end }}
submitterPodTemplate:
  {{- include "eagleray.submitter" . | nindent 2 }}
{{- end -}}

{{/* The pod that hands a run to the cluster and follows its log. */}}
{{- define "eagleray.submitter" -}}
metadata:
  labels:
    {{- include "eagleray.labels" (dict "root" . "component" "runs") | nindent 4 }}
    eagleray/role: submitter
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  {{- include "eagleray.smallPod" (dict "root" . "name" "ray-job-submitter" "memory" "512Mi") | nindent 2 }}
  volumes:
    - {name: tmp, emptyDir: {}}
    - {name: home, emptyDir: {}}
{{- end -}}

{{/* A pod of one small container, but for its volumes. root; name; memory; optional command, env and mounts (text). */}}
{{- define "eagleray.smallPod" -}}
enableServiceLinks: false
{{- with include "eagleray.pullSecrets" .root }}
{{ . }}
{{- end }}
securityContext:
  {{- include "eagleray.podSecurity" . | nindent 2 }}
containers:
  - name: {{ .name }}
    image: {{ include "eagleray.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    securityContext:
      {{- include "eagleray.containerSecurity" . | nindent 6 }}
    {{- with .command }}
    command: {{ toJson . }}
    {{- end }}
    {{- with .env }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    resources:
      requests: {cpu: 100m, memory: {{ .memory }}}
      limits: {cpu: "1", memory: {{ .memory }}}
    volumeMounts:
      {{- include "eagleray.writable" . | nindent 6 }}
      {{- with .mounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}
