package main

import (
	"context"
	"flag"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/emptypb"
)

// grpcServer is a gRPC server without a service of its own: it registers under a lease that it keeps alive, as the
// library's documentation tells its users to.
func grpcServer(args []string) error {
	set := flag.NewFlagSet("grpc-server", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	address := set.String("listen", "", "ip:port to listen on and to register")
	ttl := set.Int64("ttl", 10, "TTL of the lease in seconds")
	silent := set.Bool("no-register", false, "answer only: what runs in a pod that does not know the registry")
	_ = set.Parse(args)

	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	go func() { _ = server.Serve(listener) }()
	if *silent {
		say("serving", map[string]any{"address": *address})
		untilTold()
		server.Stop()
		return nil
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: where.list()})
	if err != nil {
		return err
	}
	manager, err := endpoints.NewManager(client, where.key())
	if err != nil {
		return err
	}
	ctx := context.Background()
	lease, err := client.Grant(ctx, *ttl)
	if err != nil {
		return err
	}
	alive, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range alive {
		}
	}()
	key := where.key() + "/" + *address
	if err := manager.AddEndpoint(ctx, key, endpoints.Endpoint{Addr: *address}, clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	say("serving", map[string]any{"address": *address})
	untilTold()
	_ = manager.DeleteEndpoint(ctx, key)
	server.Stop()
	return nil
}

// grpcResolve asks the library's own resolver, through a gRPC client that balances over everything that it returned,
// and prints the servers that answered: servers answer an unknown method too.
func grpcResolve(args []string) error {
	set := flag.NewFlagSet("grpc-resolve", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	_ = set.Parse(args)

	client, err := clientv3.New(clientv3.Config{Endpoints: where.list()})
	if err != nil {
		return err
	}
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("etcd:///"+where.key(),
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin":{}}]}`))
	if err != nil {
		return err
	}
	defer connection.Close()
	answered := map[string]bool{}
	for range 40 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		var from peer.Peer
		_ = connection.Invoke(ctx, "/nobody/Has", &emptypb.Empty{}, &emptypb.Empty{}, grpc.Peer(&from), grpc.WaitForReady(true))
		cancel()
		if from.Addr != nil {
			answered[from.Addr.String()] = true
		}
	}
	var found []instance
	for address := range answered {
		found = append(found, instance{"tcp", address, 0, map[string]string{}})
	}
	sayResolved(found, nil)
	return nil
}
