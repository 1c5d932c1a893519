//go:build !kitex

package main

import (
	"flag"
	"net"
	"time"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/proc"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// gozeroServer publishes itself as zrpc's server does (zrpc/internal/rpcpubserver.go).
func gozeroServer(args []string) error {
	set := flag.NewFlagSet("gozero-server", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	address := set.String("listen", "", "ip:port to listen on and to publish")
	silent := set.Bool("no-register", false, "answer only: what runs in a pod that does not know the registry")
	_ = set.Parse(args)
	logx.Disable()

	if err := answer(*address); err != nil {
		return err
	}
	if *silent {
		say("serving", map[string]any{"address": *address})
		untilTold()
		return nil
	}
	publisher := discov.NewPublisher(where.list(), where.key(), *address)
	if err := publisher.KeepAlive(); err != nil {
		return err
	}
	say("serving", map[string]any{"address": *address})
	untilTold()
	// What the framework runs at SIGTERM: the publisher revokes its lease.
	proc.Shutdown()
	publisher.Stop()
	time.Sleep(200 * time.Millisecond)
	return nil
}

// answer serves the health service of gRPC, as every zrpc server does, and says in each answer which server it is.
func answer(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(named(address)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	return nil
}

// gozeroClient calls all the time, as zrpc's client does.
func gozeroClient(args []string) error {
	set := flag.NewFlagSet("gozero-client", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	_ = set.Parse(args)
	logx.Disable()

	settings := zrpc.NewEtcdClientConf(where.list(), where.key(), "", "")
	settings.NonBlock = true
	client, err := zrpc.NewClient(settings, zrpc.WithTimeout(2*time.Second))
	if err != nil {
		return err
	}
	say("started", nil)
	return checkForever(client.Conn())
}

// gozeroResolve asks the framework's own subscriber once.
func gozeroResolve(args []string) error {
	set := flag.NewFlagSet("gozero-resolve", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	_ = set.Parse(args)
	logx.Disable()

	subscriber, err := discov.NewSubscriber(where.list(), where.key())
	if err != nil {
		sayResolved(nil, err)
		return nil
	}
	var found []instance
	for _, address := range subscriber.Values() {
		found = append(found, instance{"tcp", address, 0, map[string]string{}})
	}
	sayResolved(found, nil)
	return nil
}
