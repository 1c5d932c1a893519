{{/*
ServiceMonitor and PodMonitor have the same fields but for the way to their targets. Each template takes the root and the monitor's values.
*/}}
{{- define "twinspan.monitorMetadata" -}}
{{- $root := index . 0 -}}
{{- $monitor := index . 1 -}}
name: {{ include "twinspan.name" $root }}
namespace: {{ $monitor.namespace | default $root.Release.Namespace }}
labels:
  {{- merge (include "twinspan.labels" $root | fromYaml) $monitor.labels | toYaml | nindent 2 }}
{{- with merge (deepCopy $monitor.annotations) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "twinspan.monitored" -}}
{{- $root := index . 0 -}}
{{- $monitor := index . 1 -}}
{{- if and $monitor.namespace (ne $monitor.namespace $root.Release.Namespace) -}}
namespaceSelector:
  matchNames: [{{ $root.Release.Namespace }}]
{{ end -}}
selector:
  matchLabels:
    {{- include "twinspan.selectorLabels" $root | nindent 4 }}
{{- end }}

{{/* One endpoint. */}}
{{- define "twinspan.scraped" -}}
path: /metrics
{{- with .interval }}
interval: {{ quote . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ quote . }}
{{- end }}
{{- if .honorLabels }}
honorLabels: true
{{- end }}
{{- with .relabelings }}
relabelings:
{{ toYaml . }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
{{ toYaml . }}
{{- end }}
{{- end }}
