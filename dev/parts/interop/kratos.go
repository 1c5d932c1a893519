//go:build !kitex

package main

import (
	"context"
	"flag"
	"net/url"
	"strconv"
	"strings"

	kratosetcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/transport"
	kratosgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	kratoshttp "github.com/go-kratos/kratos/v2/transport/http"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func kratosRegistry(where etcdFlags) (*kratosetcd.Registry, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: where.list()})
	if err != nil {
		return nil, err
	}
	var options []kratosetcd.Option
	if where.prefix != "" {
		options = append(options, kratosetcd.Namespace(where.prefix))
	}
	return kratosetcd.New(client, options...), nil
}

// kratosServer is a whole Kratos application with a gRPC server and, where asked, an HTTP server.
func kratosServer(args []string) error {
	set := flag.NewFlagSet("kratos-server", flag.ExitOnError)
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
	servers := []transport.Server{kratosgrpc.NewServer(kratosgrpc.Address(*address), kratosgrpc.UnaryInterceptor(named(*address)))}
	if *web != "" {
		servers = append(servers, kratoshttp.NewServer(kratoshttp.Address(*web)))
	}
	options := []kratos.Option{
		kratos.Name(where.service),
		kratos.Metadata(tags),
		kratos.Server(servers...),
		kratos.AfterStart(func(context.Context) error {
			say("serving", map[string]any{"address": *address})
			return nil
		}),
	}
	if !*silent {
		options = append(options, kratos.Registrar(r))
	}
	return kratos.New(options...).Run()
}

// kratosResolve asks the framework's own registry once: one line for each endpoint, its scheme as the network.
func kratosResolve(args []string) error {
	set := flag.NewFlagSet("kratos-resolve", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	var names stringList
	set.Var(&names, "tag", "metadata to show; may be repeated")
	_ = set.Parse(args)

	r, err := kratosRegistry(where)
	if err != nil {
		return err
	}
	services, err := r.GetService(context.Background(), where.service)
	if err != nil {
		sayResolved(nil, err)
		return nil
	}
	var found []instance
	for _, service := range services {
		tags := map[string]string{}
		for _, name := range names {
			if value, found := service.Metadata[name]; found {
				tags[name] = value
			}
		}
		weight, _ := strconv.Atoi(service.Metadata["weight"])
		for _, endpoint := range service.Endpoints {
			parsed, err := url.Parse(endpoint)
			if err != nil {
				continue
			}
			found = append(found, instance{strings.ToLower(parsed.Scheme), parsed.Host, weight, tags})
		}
	}
	sayResolved(found, nil)
	return nil
}
