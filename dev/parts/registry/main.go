// Command registry is the registry server of the CNCF Distribution project as
// its makers build it, with its files in a directory: what a release is pushed
// to, and what a node pulls from, in a test.
package main

import (
	"context"
	"flag"
	"log"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	listen := flag.String("listen", "", "address and port of the server, which speaks plain HTTP")
	directory := flag.String("dir", "", "directory of blobs and manifests")
	flag.Parse()
	if *listen == "" || *directory == "" {
		log.Fatal("registry: -listen and -dir are needed")
	}

	config := &configuration.Configuration{
		Version: configuration.CurrentVersion,
		Storage: configuration.Storage{"filesystem": configuration.Parameters{"rootdirectory": *directory}},
	}
	config.Log.Level = "info"
	config.HTTP.Addr = *listen
	// Without a secret of its own, it says on every start that it made one.
	config.HTTP.Secret = "of no use: one server"
	server, err := registry.NewRegistry(context.Background(), config)
	if err != nil {
		log.Fatalf("registry: %v", err)
	}
	log.Fatalf("registry: %v", server.ListenAndServe())
}
