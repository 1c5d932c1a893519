//go:build !kitex

package main

import (
	"context"
	"flag"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/emptypb"
)

// grpcServer is a gRPC server with the health service alone: it registers under a lease that it keeps alive, as the
// library's documentation tells its users to.
func grpcServer(args []string) error {
	set := flag.NewFlagSet("grpc-server", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	address := set.String("listen", "", "ip:port to listen on and to register")
	ttl := set.Int64("ttl", 10, "TTL of the lease in seconds")
	silent := set.Bool("no-register", false, "answer only: what runs in a pod that does not know the registry")
	_ = set.Parse(args)

	if err := answer(*address); err != nil {
		return err
	}
	if *silent {
		say("serving", map[string]any{"address": *address})
		untilTold()
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
	time.Sleep(200 * time.Millisecond)
	return nil
}

// grpcConnection is a client's, with the library's own resolver, that balances over everything that it returns.
func grpcConnection(where etcdFlags) (*grpc.ClientConn, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: where.list()})
	if err != nil {
		return nil, err
	}
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("etcd:///"+where.key(),
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin":{}}]}`))
}

// grpcClient calls all the time and says who answered.
func grpcClient(args []string) error {
	set := flag.NewFlagSet("grpc-client", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	_ = set.Parse(args)

	connection, err := grpcConnection(where)
	if err != nil {
		return err
	}
	defer connection.Close()
	say("started", nil)
	return checkForever(connection)
}

// grpcResolve asks the library's own resolver, through a client, and prints the servers that answered: servers answer
// an unknown method too.
func grpcResolve(args []string) error {
	set := flag.NewFlagSet("grpc-resolve", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	_ = set.Parse(args)

	connection, err := grpcConnection(where)
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
