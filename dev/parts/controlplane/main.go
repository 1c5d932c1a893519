// Command controlplane is a Kubernetes control plane and its tools in one
// binary, chosen by the first argument. One binary links most of its code once:
// five would be five times as large and take five times as long to build.
package main

import (
	"fmt"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

const parts = "etcd|etcdctl|kube-apiserver|kube-controller-manager|kubectl"

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	part := os.Args[1]
	os.Args = append([]string{part}, os.Args[2:]...)
	switch part {
	case "etcd":
		// A witness of what was asked must not skip lines when there are many.
		logutil.DefaultZapLoggerConfig.Sampling = nil
		// etcd preallocates two segments, of 64 MB each by default: a hundred
		// beds would fill a disk.
		wal.SegmentSizeBytes = 4 << 20
		etcdmain.Main(os.Args)
	case "etcdctl":
		if err := ctlv3.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(kcm.NewControllerManagerCommand()))
	case "kubectl":
		os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintf(os.Stderr, "usage: controlplane %s [flags]\n", parts)
	os.Exit(2)
}
