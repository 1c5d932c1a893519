// Command oracle answers as Kubernetes' own code would: what its EndpointSlice
// controller would write, and which endpoints kube-proxy would use. It reads one
// JSON object on standard input and prints one on standard output.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		usage()
	}
	var answer any
	var err error
	switch os.Args[1] {
	case "slices":
		answer, err = slices(os.Stdin)
	case "proxy":
		answer, err = kubeProxy(os.Stdin)
	default:
		usage()
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: oracle slices|proxy <question.json")
	os.Exit(2)
}
