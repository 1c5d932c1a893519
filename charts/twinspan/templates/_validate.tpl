{{/*
What values.schema.json cannot say so that a person understands it: each refusal names the key, what it may be, and what was given.
*/}}
{{- define "twinspan.validate" -}}
{{- $quantity := "^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$" -}}
{{- with .Values.image -}}
{{- if or (regexMatch "[@[:space:]]" .repository) (contains ":" (base .repository)) -}}
{{- fail (printf "image.repository: give registry and name only, e.g. localhost/twinspan; a tag goes into image.tag, a digest into image.digest. Got %q" .repository) -}}
{{- end -}}
{{- if and .tag (not (regexMatch "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$" .tag)) -}}
{{- fail (printf "image.tag: letters, digits, '.', '_' and '-', at most 128. Got %q" .tag) -}}
{{- end -}}
{{- if and .digest (not (regexMatch "^sha256:[0-9a-f]{64}$" .digest)) -}}
{{- fail (printf "image.digest: 'sha256:' and 64 hexadecimal digits. Got %q" .digest) -}}
{{- end -}}
{{- end -}}
{{- range $part, $amounts := .Values.resources -}}
{{- range $name, $amount := $amounts -}}
{{- if and (kindIs "string" $amount) (not (regexMatch $quantity $amount)) -}}
{{- fail (printf "resources.%s.%s: a quantity such as 100m, 1 or 128Mi. Got %q" $part $name $amount) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.traces.otlpEndpoint -}}
{{- if not (regexMatch "^http://[^[:space:]]+$" .) -}}
{{- fail (printf "traces.otlpEndpoint: it has to begin with http://, e.g. http://collector.monitoring:4317. Got %q" .) -}}
{{- end -}}
{{- end -}}
{{- range $monitor := list "serviceMonitor" "podMonitor" -}}
{{- range $time := list "interval" "scrapeTimeout" -}}
{{- with index $.Values.metrics $monitor $time -}}
{{- if not (regexMatch "^([0-9]+(ms|s|m|h))+$" .) -}}
{{- fail (printf "metrics.%s.%s: a duration such as 30s or 1m. Got %q" $monitor $time .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.metrics.prometheusRule -}}
{{- if and .runbookBaseURL (not (regexMatch "^https?://[^[:space:]#]+$" .runbookBaseURL)) -}}
{{- fail (printf "metrics.prometheusRule.runbookBaseURL: a URL that begins with https:// or http://; the section is appended. Got %q" .runbookBaseURL) -}}
{{- end -}}
{{- if hasKey .alertLabels "severity" -}}
{{- fail "metrics.prometheusRule.alertLabels: severity is the chart's own, and each alert's; route by another label, or leave the alert out with `disabled`" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.page.service.enabled (not .Values.page.enabled) -}}
{{- fail "page.service.enabled: page.enabled is false, so that nothing answers there; set one of them otherwise" -}}
{{- end -}}
{{- if and .Values.page.enabled (eq (int64 .Values.page.port) 8080) -}}
{{- fail "page.port: 8080 is the port of health and metrics; give another" -}}
{{- end -}}
{{- with .Values.rollouts.drain -}}
{{- if and .enabled (eq (int64 .port) 8080) -}}
{{- fail "rollouts.drain.port: 8080 is the port of health and metrics; give another" -}}
{{- end -}}
{{- if and .enabled $.Values.page.enabled (eq (int64 .port) (int64 $.Values.page.port)) -}}
{{- fail (printf "rollouts.drain.port: %d is the port of the page; give another" (int64 .port)) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.dnsPolicy "None") (not .Values.dnsConfig.nameservers) -}}
{{- fail "dnsPolicy: None asks nobody; give dnsConfig.nameservers as well" -}}
{{- end -}}
{{- $labels := merge (include "twinspan.noSidecarLabels" . | fromYaml) (include "twinspan.selectorLabels" . | fromYaml) -}}
{{- range $key, $_ := .Values.podLabels -}}
{{- if hasKey $labels $key -}}
{{- fail (printf "podLabels: %s is the chart's own; it finds the pods, or keeps sidecars away, which would answer probes for the dead. Remove it" $key) -}}
{{- end -}}
{{- end -}}
{{- $own := merge (include "twinspan.ownLabels" . | fromYaml) $labels -}}
{{- range $key, $_ := .Values.commonLabels -}}
{{- if or (hasKey $own $key) (hasPrefix "rbac.authorization.k8s.io/" $key) -}}
{{- fail (printf "commonLabels: %s is the chart's own. Remove it" $key) -}}
{{- end -}}
{{- end -}}
{{- $annotations := include "twinspan.noSidecarAnnotations" . | fromYaml -}}
{{- range $key, $_ := .Values.podAnnotations -}}
{{- if hasKey $annotations $key -}}
{{- fail (printf "podAnnotations: %s is the chart's own; it keeps sidecars away, which would answer probes for the dead. Remove it" $key) -}}
{{- end -}}
{{- end -}}
{{- $own := merge (include "twinspan.keptAnnotations" . | fromYaml) $annotations -}}
{{- range $key, $_ := .Values.commonAnnotations -}}
{{- if or (hasKey $own $key) (hasPrefix "helm.sh/" $key) -}}
{{- fail (printf "commonAnnotations: %s is the chart's own. Remove it" $key) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if or (has .name (list "HOSTNAME" "RUST_LOG")) (hasPrefix "TWINSPAN_" .name) -}}
{{- fail (printf "extraEnv: %s is the chart's own; other values of the chart set it" .name) -}}
{{- end -}}
{{- end -}}
{{- with .Values.namespaced -}}
{{- if .enabled -}}
{{- range $key := list "namespaces" "clusterID" "podCIDRs" "nodeCIDRs" -}}
{{- if not (index $.Values.namespaced $key) -}}
{{- fail (printf "namespaced.%s: namespaced mode needs it, for Nodes, ServiceCIDRs and other releases cannot be looked at there" $key) -}}
{{- end -}}
{{- end -}}
{{- if not $.Values.serviceCIDRs -}}
{{- fail "serviceCIDRs: namespaced mode needs it, for ServiceCIDRs cannot be looked at there" -}}
{{- end -}}
{{- if not $.Values.servedRegistries -}}
{{- fail "servedRegistries: namespaced mode needs the names of the ServiceRegistries that this release serves; another release serves others" -}}
{{- end -}}
{{- range $key, $networks := dict "serviceCIDRs" $.Values.serviceCIDRs "namespaced.nodeCIDRs" .nodeCIDRs -}}
{{- range $family, $isV6 := dict "IPv4" false "IPv6" true -}}
{{- $pods := false -}}
{{- range $.Values.namespaced.podCIDRs -}}
{{- $pods = or $pods (eq (contains ":" .) $isV6) -}}
{{- end -}}
{{- $has := not $pods -}}
{{- range $networks -}}
{{- $has = or $has (eq (contains ":" .) $isV6) -}}
{{- end -}}
{{- if not $has -}}
{{- fail (printf "%s: namespaced.podCIDRs has an %s network, and this has none; name those of the cluster" $key $family) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.serviceRegistries -}}
{{- if or (gt (len $name) 253) (not (regexMatch "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$" $name)) -}}
{{- fail (printf "serviceRegistries: %q is no name of an object; use small letters, digits, '-' and '.'" $name) -}}
{{- end -}}
{{- end -}}
{{- end }}
