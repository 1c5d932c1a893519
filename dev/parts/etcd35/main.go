// Command etcd35 is the oldest line of etcd that is still maintained, for the
// stories about older registries. Its arguments are those of controlplane.
package main

import (
	"fmt"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/wal"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "etcd" {
		fmt.Fprintln(os.Stderr, "usage: etcd35 etcd [flags]")
		os.Exit(2)
	}
	os.Args = os.Args[1:]
	// A witness of what was asked must not skip lines when there are many.
	logutil.DefaultZapLoggerConfig.Sampling = nil
	// etcd preallocates two segments, of 64 MB each by default.
	wal.SegmentSizeBytes = 4 << 20
	etcdmain.Main(os.Args)
}
