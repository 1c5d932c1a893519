package main

import (
	"encoding/json"
	"fmt"
	"io"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

// decode reads an object of the Prometheus operator as its own types have it, and
// answers null. A field that they do not know is an error.
func decode(kind string, in io.Reader, out io.Writer) error {
	var into any
	switch kind {
	case monitoring.PodMonitorsKind:
		into = &monitoring.PodMonitor{}
	case monitoring.ServiceMonitorsKind:
		into = &monitoring.ServiceMonitor{}
	case monitoring.PrometheusRuleKind:
		into = &monitoring.PrometheusRule{}
	default:
		return fmt.Errorf("%s is none of the kinds that are known here", kind)
	}
	strict := json.NewDecoder(in)
	strict.DisallowUnknownFields()
	if err := strict.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return json.NewEncoder(out).Encode(nil)
}
