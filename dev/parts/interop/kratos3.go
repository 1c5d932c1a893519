//go:build !kitex

package main

import (
	"context"
	"flag"

	kratosetcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	registry2 "github.com/go-kratos/kratos/v2/registry"
	kratos3 "github.com/go-kratos/kratos/v3"
	registry3 "github.com/go-kratos/kratos/v3/registry"
	"github.com/go-kratos/kratos/v3/transport"
	grpc3 "github.com/go-kratos/kratos/v3/transport/grpc"
	http3 "github.com/go-kratos/kratos/v3/transport/http"
)

// kratos3Registry is the registry of Kratos 2 for programs of Kratos 3: both have the same instances, field for field.
type kratos3Registry struct{ *kratosetcd.Registry }

func (r kratos3Registry) Register(ctx context.Context, service *registry3.ServiceInstance) error {
	return r.Registry.Register(ctx, (*registry2.ServiceInstance)(service))
}

func (r kratos3Registry) Deregister(ctx context.Context, service *registry3.ServiceInstance) error {
	return r.Registry.Deregister(ctx, (*registry2.ServiceInstance)(service))
}

func (r kratos3Registry) GetService(ctx context.Context, name string) ([]*registry3.ServiceInstance, error) {
	services, err := r.Registry.GetService(ctx, name)
	return instances3(services), err
}

func (r kratos3Registry) Watch(ctx context.Context, name string) (registry3.Watcher, error) {
	watcher, err := r.Registry.Watch(ctx, name)
	if err != nil {
		return nil, err
	}
	return kratos3Watcher{watcher}, nil
}

type kratos3Watcher struct{ registry2.Watcher }

func (w kratos3Watcher) Next() ([]*registry3.ServiceInstance, error) {
	services, err := w.Watcher.Next()
	return instances3(services), err
}

func instances3(services []*registry2.ServiceInstance) []*registry3.ServiceInstance {
	var converted []*registry3.ServiceInstance
	for _, service := range services {
		converted = append(converted, (*registry3.ServiceInstance)(service))
	}
	return converted
}

// kratos3Server is a whole application of Kratos 3; it says who it is in a header of its gRPC answers.
func kratos3Server(args []string) error {
	set := flag.NewFlagSet("kratos3-server", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	address := set.String("listen", "", "ip:port of the gRPC server")
	web := set.String("http", "", "ip:port of the HTTP server; empty is none")
	silent := set.Bool("no-register", false, "answer only: what runs in a pod that does not know the registry")
	var pairs stringList
	set.Var(&pairs, "tag", "key=value of the metadata; may be repeated")
	_ = set.Parse(args)

	r, err := kratosRegistry(where)
	if err != nil {
		return err
	}
	tags, err := pairs.tags()
	if err != nil {
		return err
	}
	servers := []transport.Server{grpc3.NewServer(grpc3.Address(*address), grpc3.UnaryInterceptor(named(*address)))}
	if *web != "" {
		servers = append(servers, http3.NewServer(http3.Address(*web)))
	}
	options := []kratos3.Option{
		kratos3.Name(where.service),
		kratos3.Metadata(tags),
		kratos3.Server(servers...),
		kratos3.AfterStart(func(context.Context) error {
			say("serving", map[string]any{"address": *address})
			return nil
		}),
	}
	if !*silent {
		options = append(options, kratos3.Registrar(kratos3Registry{r}))
	}
	return kratos3.New(options...).Run()
}

// kratos3Client calls all the time, through the discovery of Kratos 3.
func kratos3Client(args []string) error {
	set := flag.NewFlagSet("kratos3-client", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	_ = set.Parse(args)

	r, err := kratosRegistry(where)
	if err != nil {
		return err
	}
	connection, err := grpc3.NewClient(context.Background(),
		grpc3.WithEndpoint("discovery:///"+where.service), grpc3.WithDiscovery(kratos3Registry{r}))
	if err != nil {
		return err
	}
	say("started", nil)
	return checkForever(connection)
}
