package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	endpointsliceutil "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"
)

// A question is a sequence of states: the endpoints that a Service should have.
type slicesQuestion struct {
	States [][]struct {
		IP   string `json:"ip"`
		Port int32  `json:"port"`
	} `json:"states"`
}

// The answer has for each state the number of written slices, the number of endpoints that stayed but moved to another
// slice, and the slices after it.
type slicesAnswer struct {
	Writes []int                       `json:"writes"`
	Moved  []int                       `json:"moved"`
	Slices [][]discovery.EndpointSlice `json:"slices"`
}

const (
	namespace    = "ns"
	serviceName  = "svc"
	maxEndpoints = 100
)

func slices(input io.Reader) (*slicesAnswer, error) {
	var question slicesQuestion
	if err := json.NewDecoder(input).Decode(&question); err != nil {
		return nil, err
	}
	client := fake.NewSimpleClientset()
	names := 0
	// The fake API server does not generate names.
	client.PrependReactor("create", "endpointslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		slice := action.(clienttesting.CreateAction).GetObject().(*discovery.EndpointSlice)
		if slice.Name == "" {
			names++
			slice.Name = fmt.Sprintf("%s%05d", slice.GenerateName, names)
		}
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	nodes := factory.Core().V1().Nodes()
	if err := nodes.Informer().GetStore().Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}); err != nil {
		return nil, err
	}
	reconciler := endpointslice.NewReconciler(client, nodes.Lister(), maxEndpoints, endpointsliceutil.NewEndpointSliceTracker(),
		topologycache.NewTopologyCache(), record.NewFakeRecorder(1000), "oracle")
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName, Namespace: namespace, UID: types.UID("uid")},
		Spec: corev1.ServiceSpec{
			Selector:   map[string]string{"app": "x"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:      []corev1.ServicePort{{Name: "rpc", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("rpc")}},
		},
	}
	answer := &slicesAnswer{}
	before := map[string]string{}
	for _, state := range question.States {
		var pods []*corev1.Pod
		for _, endpoint := range state {
			pods = append(pods, pod(endpoint.IP, endpoint.Port))
		}
		list, err := client.DiscoveryV1().EndpointSlices(namespace).List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var existing []*discovery.EndpointSlice
		for i := range list.Items {
			existing = append(existing, &list.Items[i])
		}
		client.ClearActions()
		if err := reconciler.Reconcile(klog.Background(), service, pods, existing, time.Now()); err != nil {
			return nil, err
		}
		answer.Writes = append(answer.Writes, writes(client.Actions()))
		list, err = client.DiscoveryV1().EndpointSlices(namespace).List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		answer.Slices = append(answer.Slices, list.Items)
		after := placement(list.Items)
		moved := 0
		for endpoint, slice := range after {
			if old, was := before[endpoint]; was && old != slice {
				moved++
			}
		}
		answer.Moved = append(answer.Moved, moved)
		before = after
	}
	return answer, nil
}

func pod(ip string, port int32) *corev1.Pod {
	name := fmt.Sprintf("pod-%s-%d", ip, port)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, UID: types.UID(name), Labels: map[string]string{"app": "x"}},
		Spec: corev1.PodSpec{
			NodeName:   "node",
			Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "rpc", ContainerPort: port, Protocol: corev1.ProtocolTCP}}}},
		},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			PodIP:      ip,
			PodIPs:     []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
}

func writes(actions []clienttesting.Action) int {
	count := 0
	for _, action := range actions {
		if action.GetResource().Resource == "endpointslices" && action.GetVerb() != "list" && action.GetVerb() != "get" {
			count++
		}
	}
	return count
}

// placement says which slice holds which endpoint.
func placement(slices []discovery.EndpointSlice) map[string]string {
	placed := map[string]string{}
	for _, slice := range slices {
		for _, port := range slice.Ports {
			for _, endpoint := range slice.Endpoints {
				placed[fmt.Sprintf("%s:%d", endpoint.Addresses[0], *port.Port)] = slice.Name
			}
		}
	}
	return placed
}
