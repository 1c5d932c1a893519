// Command controlplane131 is the API server of the oldest Kubernetes that
// Twinspan works with, for the stories about older clusters. The other parts of
// those clusters are today's.
package main

import (
	"fmt"
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "kube-apiserver" {
		fmt.Fprintln(os.Stderr, "usage: controlplane131 kube-apiserver [flags]")
		os.Exit(2)
	}
	os.Args = os.Args[1:]
	os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
}
