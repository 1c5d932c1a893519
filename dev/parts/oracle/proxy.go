package main

import (
	"encoding/json"
	"io"
	"sort"

	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/kubernetes/pkg/proxy"
)

// kubeProxy reads EndpointSlices and says, for each name of a Service port, which ready endpoints kube-proxy would send
// traffic to.
func kubeProxy(input io.Reader) (map[string][]string, error) {
	var question struct {
		Slices []discovery.EndpointSlice `json:"slices"`
	}
	if err := json.NewDecoder(input).Decode(&question); err != nil {
		return nil, err
	}
	answer := map[string][]string{}
	for _, family := range []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} {
		tracker := proxy.NewEndpointsChangeTracker(family, "node", nil, nil)
		for i := range question.Slices {
			tracker.EndpointSliceUpdate(&question.Slices[i], false)
		}
		endpoints := proxy.EndpointsMap{}
		endpoints.Update(tracker)
		for name, list := range endpoints {
			for _, endpoint := range list {
				if endpoint.IsReady() {
					answer[name.Port] = append(answer[name.Port], endpoint.String())
				}
			}
		}
	}
	for _, list := range answer {
		sort.Strings(list)
	}
	return answer, nil
}
