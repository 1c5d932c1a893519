//go:build !kitex

package main

// The programs of the other frameworks.
func init() {
	for name, program := range map[string]func(args []string) error{
		"hertz-server":   hertzServer,
		"hertz-client":   hertzClient,
		"hertz-resolve":  hertzResolve,
		"kratos-server":  kratosServer,
		"kratos-resolve": kratosResolve,
		"kratos3-server": kratos3Server,
		"kratos3-client": kratos3Client,
		// Both versions read the same records with the same registry.
		"kratos3-resolve": kratosResolve,
		"gozero-server":   gozeroServer,
		"gozero-client":   gozeroClient,
		"gozero-resolve":  gozeroResolve,
		"goframe-server":  goframeServer,
		"goframe-client":  goframeClient,
		"goframe-resolve": goframeResolve,
		"grpc-server":     grpcServer,
		"grpc-client":     grpcClient,
		"grpc-resolve":    grpcResolve,
		"reader":          reader,
	} {
		programs[name] = program
	}
}
