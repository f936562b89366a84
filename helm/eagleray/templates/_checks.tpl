{{/* Refusals: each says what is wrong and what to set. Included once, by rayservice.yaml. */}}
{{- define "eagleray.checks" -}}
{{- if not .Values.model.name }}{{ fail "model.name must name a model, but is empty; set it: --set model.name=churn" }}{{ end -}}
{{- if not .Values.storage.uri }}{{ fail "storage.uri must say where models are, but is empty; set it: --set storage.uri=s3://my-bucket" }}{{ end -}}
{{- if hasSuffix "-tuning" .Release.Name }}{{ fail (printf "the release must not be called %s: KubeRay's Services for it would be those of the tuning cluster of a release %s; choose another name" .Release.Name (trimSuffix "-tuning" .Release.Name)) }}{{ end -}}
{{- include "eagleray.operatorChecks" . -}}
{{- include "eagleray.storageChecks" . -}}
{{- if .Values.serving.enabled }}{{ include "eagleray.servingChecks" . }}{{ end -}}
{{- include "eagleray.runChecks" . -}}
{{- include "eagleray.accessChecks" . -}}
{{- end -}}

{{- define "eagleray.operatorChecks" -}}
{{- $apis := .Capabilities.APIVersions -}}
{{- $told := .Values.kuberay.version -}}
{{- if not (or ($apis.Has "ray.io/v1") ($apis.Has "ray.io/v1/RayService")) -}}
{{- $gate := ternary " --set 'featureGates[0].name=GCSFaultToleranceEmbeddedStorage,featureGates[0].enabled=true'" "" .Values.ray.faultTolerance.embedded -}}
{{- fail (printf "the cluster must have the KubeRay operator, but it does not know ray.io/v1; install it: helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm --namespace kuberay-system --create-namespace%s (without a cluster: helm template --api-versions ray.io/v1)" $gate) -}}
{{- end -}}
{{- $kinds := $apis.Has "ray.io/v1/RayService" -}}
{{- if and $kinds (not ($apis.Has "ray.io/v1/RayCronJob")) (semverCompare ">=1.6" (printf "%s.0" $told)) -}}
{{- fail (printf "kuberay.version is %s, but the cluster's resource definitions are older (there is no RayCronJob); upgrade the operator and its definitions, or set kuberay.version to 1.5 or 1.4" $told) -}}
{{- end -}}
{{- if and .Values.ray.tokenAuth (semverCompare "<1.5" (printf "%s.0" $told)) -}}
{{- fail "ray.tokenAuth needs KubeRay 1.5, but kuberay.version is 1.4; upgrade the operator, or set ray.tokenAuth=false: then whoever reaches a head pod may run code on it" -}}
{{- end -}}
{{- end -}}

{{- define "eagleray.storageChecks" -}}
{{- $values := .Values -}}
{{- if and $values.objectStore.embedded $values.storage.endpoint -}}
{{- fail "objectStore.embedded brings its own S3 server, but storage.endpoint names another one; set one of the two" -}}
{{- end -}}
{{- if $values.storage.existingSecret -}}
{{- range $key := list "eks.amazonaws.com/role-arn" "iam.gke.io/gcp-service-account" "azure.workload.identity/client-id" -}}
{{- if hasKey $values.serviceAccount.annotations $key -}}
{{- fail (printf "storage.existingSecret gives access keys, but serviceAccount.annotations has %s, an identity that the keys would hide; set one of the two" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.serviceAccount.annotations (not $values.serviceAccount.create) -}}
{{- fail "serviceAccount.annotations are for a service account that the chart makes, but serviceAccount.create is false; annotate the existing one, and leave them empty" -}}
{{- end -}}
{{- if and (not $values.serviceAccount.create) (not $values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false, but no account is named; set serviceAccount.name" -}}
{{- end -}}
{{- with $values.ray.faultTolerance -}}
{{- if and .embedded .redisAddress -}}
{{- fail "ray.faultTolerance.embedded keeps the head's state on a volume, but ray.faultTolerance.redisAddress names a Redis for it; set one of the two" -}}
{{- end -}}
{{- if and .embedded (semverCompare "<1.7" (printf "%s.0" $values.kuberay.version)) -}}
{{- fail (printf "ray.faultTolerance.embedded needs KubeRay 1.7, but kuberay.version is %s; upgrade the operator, with its feature gate GCSFaultToleranceEmbeddedStorage, and set kuberay.version=1.7, or set ray.faultTolerance.redisAddress" $values.kuberay.version) -}}
{{- end -}}
{{- if and .existingSecret (not .redisAddress) -}}
{{- fail "ray.faultTolerance.existingSecret is for Redis, but no Redis is named; set ray.faultTolerance.redisAddress" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "eagleray.servingChecks" -}}
{{- $s := .Values.serving -}}
{{- if and $s.capture.hash (not $s.capture.keySecret) -}}
{{- fail "serving.capture.keySecret must name a Secret with the key of the hashes, but is empty: plain hashes can be guessed" -}}
{{- end -}}
{{- if and .Values.monitoring.tracing.endpoint .Values.networkPolicy.enabled (not .Values.networkPolicy.collector) -}}
{{- fail "monitoring.tracing.endpoint is set, but no policy lets spans out; name the collector's pods in networkPolicy.collector" -}}
{{- end -}}
{{- if and (ne $s.rollout.mode "canary") (ne (len $s.rollout.steps) 1) -}}
{{- fail (printf "serving.rollout.steps must be one share where serving.rollout.mode is %s, but has %d; leave one, such as 10" $s.rollout.mode (len $s.rollout.steps)) -}}
{{- end -}}
{{- $before := 0.0 -}}
{{- range $s.rollout.steps -}}
{{- if le (float64 .) $before -}}
{{- fail (printf "serving.rollout.steps must rise, but has %v after %v; order them, such as 5, 25, 50" . $before) -}}
{{- end -}}
{{- $before = float64 . -}}
{{- end -}}
{{- range $what, $range := dict "serving.replicas" $s.replicas "serving.workers" $s.workers -}}
{{- if lt (int $range.max) (int $range.min) -}}
{{- fail (printf "%s.max must be at least %s.min, which is %v, but is %v; set it to %v or more" $what $what $range.min $range.max $range.min) -}}
{{- end -}}
{{- end -}}
{{- if gt (float64 $s.replicas.cpus) (float64 $s.workers.cpus) -}}
{{- fail (printf "a replica must fit on a worker, but serving.replicas.cpus is %v and serving.workers.cpus is %v; set serving.workers.cpus to %v or more" $s.replicas.cpus $s.workers.cpus (ceil $s.replicas.cpus)) -}}
{{- end -}}
{{- if gt (float64 $s.replicas.gpus) (float64 $s.workers.gpus) -}}
{{- fail (printf "a replica must fit on a worker, but serving.replicas.gpus is %v and serving.workers.gpus is %v; set serving.workers.gpus to %v or more" $s.replicas.gpus $s.workers.gpus (ceil $s.replicas.gpus)) -}}
{{- end -}}
{{- if and (gt (int $s.workers.gpus) 0) (not $s.replicas.gpus) -}}
{{- fail (printf "GPUs of workers must have replicas that use them, but serving.workers.gpus is %v and serving.replicas.gpus is 0; set serving.replicas.gpus, 1 or a part of it" $s.workers.gpus) -}}
{{- end -}}
{{- if and (ne $s.replicas.precision "fp32") (not $s.replicas.gpus) -}}
{{- fail (printf "serving.replicas.precision must be fp32 without GPUs, but is %v; set serving.replicas.gpus" $s.replicas.precision) -}}
{{- end -}}
{{- $each := floor (divf $s.workers.cpus $s.replicas.cpus) | int -}}
{{- if $s.replicas.gpus -}}{{- $each = min $each (floor (divf $s.workers.gpus $s.replicas.gpus) | int) | int -}}{{- end -}}
{{- if gt (int $s.replicas.max) (mul $each (int $s.workers.max)) -}}
{{- fail (printf "serving.replicas.max is %v, but %v workers hold %d each; set serving.workers.max to %v or more" $s.replicas.max $s.workers.max $each (ceil (divf $s.replicas.max $each))) -}}
{{- end -}}
{{- $all := add (int $s.replicas.max) (int $s.large.maxReplicas) -}}
{{- if and $s.large.enabled (gt (int $all) (mul $each (int $s.workers.max) | int)) -}}
{{- fail (printf "large replicas must have room beside the others, but serving.replicas.max and serving.large.maxReplicas are %v together and %v workers hold %d each; set serving.workers.max to %v or more" $all $s.workers.max $each (ceil (divf $all $each))) -}}
{{- end -}}
{{- if and (eq $s.upgradeStrategy.type "NewClusterWithIncrementalUpgrade") (semverCompare "<1.5" (printf "%s.0" .Values.kuberay.version)) -}}
{{- fail "serving.upgradeStrategy.type is NewClusterWithIncrementalUpgrade, which came with KubeRay 1.5, but kuberay.version is 1.4; upgrade the operator, or set serving.upgradeStrategy.type=NewCluster" -}}
{{- end -}}
{{- if and (eq $s.upgradeStrategy.type "NewClusterWithIncrementalUpgrade") (not $s.upgradeStrategy.incremental.gatewayClassName) -}}
{{- fail "serving.upgradeStrategy.type is NewClusterWithIncrementalUpgrade, which splits traffic by a gateway; set serving.upgradeStrategy.incremental.gatewayClassName" -}}
{{- end -}}
{{- if and (eq $s.upgradeStrategy.type "NewClusterWithIncrementalUpgrade") (ge (int $s.workers.min) (int $s.workers.max)) -}}
{{- fail (printf "serving.upgradeStrategy.type is NewClusterWithIncrementalUpgrade, which needs Ray's autoscaler; set serving.workers.max above serving.workers.min, which is %v" $s.workers.min) -}}
{{- end -}}
{{- end -}}

{{- define "eagleray.runChecks" -}}
{{- if and (eq .Values.runs.cluster "tuning") (not .Values.tuning.enabled) -}}
{{- fail "runs.cluster is tuning, but there is no such cluster; set tuning.enabled=true, or runs.cluster=own" -}}
{{- end -}}
{{- $groups := dict -}}
{{- range .Values.tuning.workers -}}
{{- if hasKey $groups .name }}{{ fail (printf "tuning.workers must have different names, but two are called %s; rename one" .name) }}{{ end -}}
{{- $_ := set $groups .name true -}}
{{- if lt (int .max) (int .min) -}}
{{- fail (printf "tuning.workers: max of %s must be at least its min, which is %v, but is %v; set it to %v or more" .name .min .max .min) -}}
{{- end -}}
{{- end -}}
{{- $names := dict -}}
{{- range .Values.schedules.searches -}}
{{- if hasKey $names .name }}{{ fail (printf "schedules.searches must have different names, but two are called %s; rename one" .name) }}{{ end -}}
{{- $_ := set $names .name true -}}
{{- end -}}
{{- if and (eq .Values.schedules.kind "RayCronJob") (semverCompare "<1.6" (printf "%s.0" .Values.kuberay.version)) -}}
{{- fail (printf "schedules.kind is RayCronJob, which needs KubeRay 1.6, but kuberay.version is %s; set schedules.kind to auto or CronJob" .Values.kuberay.version) -}}
{{- end -}}
{{- end -}}

{{- define "eagleray.accessChecks" -}}
{{- $values := .Values -}}
{{- $apis := .Capabilities.APIVersions -}}
{{- $inSteps := and $values.serving.enabled (eq $values.serving.upgradeStrategy.type "NewClusterWithIncrementalUpgrade") -}}
{{- if and (or $values.ingress.enabled $values.httpRoute.enabled $inSteps) $values.networkPolicy.enabled (not $values.networkPolicy.gateway) -}}
{{- fail "ingress, httpRoute or an upgrade in steps sends traffic, but the network policies keep its pods out; set networkPolicy.gateway to the ingress controller's or gateway's peers" -}}
{{- end -}}
{{- if and (or $values.ingress.enabled $values.httpRoute.enabled) (not $values.serving.enabled) -}}
{{- fail "ingress or httpRoute is enabled, but there is no endpoint behind it; set serving.enabled=true" -}}
{{- end -}}
{{- if and $values.ingress.enabled (not $values.ingress.host) -}}
{{- fail "ingress.enabled needs a host's name; set ingress.host" -}}
{{- end -}}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs a gateway; set httpRoute.parentRefs" -}}
{{- end -}}
{{- if and (or $values.httpRoute.enabled $inSteps) (not ($apis.Has "gateway.networking.k8s.io/v1")) -}}
{{- fail "httpRoute.enabled and upgrades in steps need the Gateway API, but the cluster does not have gateway.networking.k8s.io/v1; install it: kubectl apply -f https://github.com/kubernetes-sigs/gateway-api/releases/latest/download/standard-install.yaml" -}}
{{- end -}}
{{- if and (or $values.monitoring.podMonitor.enabled $values.monitoring.serviceMonitor.enabled $values.monitoring.rules.enabled) (not ($apis.Has "monitoring.coreos.com/v1")) -}}
{{- fail "monitoring needs the Prometheus operator, but the cluster does not have monitoring.coreos.com/v1; install it: helm install kube-prometheus-stack kube-prometheus-stack --repo https://prometheus-community.github.io/helm-charts, or disable monitoring" -}}
{{- end -}}
{{- if and $values.monitoring.podMonitor.enabled $values.monitoring.serviceMonitor.enabled -}}
{{- fail "monitoring.podMonitor and monitoring.serviceMonitor would scrape the same pods twice; enable one of the two" -}}
{{- end -}}
{{- end -}}
