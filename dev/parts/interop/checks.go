//go:build !kitex

package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// instanceHeader names the server that answers.
const instanceHeader = "instance"

// named says in a header of each answer which instance gave it.
func named(address string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := grpc.SetHeader(ctx, metadata.Pairs(instanceHeader, address)); err != nil {
			return nil, err
		}
		return handler(ctx, request)
	}
}

// checkForever calls the health service of gRPC all the time, and says who answered.
func checkForever(connection grpc.ClientConnInterface) error {
	for {
		var header metadata.MD
		began := time.Now()
		ctx, done := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := healthpb.NewHealthClient(connection).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&header))
		done()
		call := map[string]any{"took": time.Since(began).Milliseconds()}
		if names := header.Get(instanceHeader); err == nil && len(names) == 1 {
			call["from"] = names[0]
		} else {
			call["error"] = fmt.Sprint(err)
		}
		say("call", call)
		time.Sleep(callInterval)
	}
}
