//go:build !kitex

package main

import (
	"context"
	"flag"
	"time"

	hertzapp "github.com/cloudwego/hertz/pkg/app"
	hertzclient "github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/client/discovery"
	"github.com/cloudwego/hertz/pkg/app/middlewares/client/sd"
	hertzserver "github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/app/server/registry"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/common/utils"
	"github.com/cloudwego/hertz/pkg/network/standard"
	hertzetcd "github.com/hertz-contrib/registry/etcd"
)

// hertzServer tells each caller the address that it listens on.
func hertzServer(args []string) error {
	set := flag.NewFlagSet("hertz-server", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	address := set.String("listen", "", "ip:port to listen on and to register")
	weight := set.Int("weight", 10, "weight to register")
	silent := set.Bool("no-register", false, "answer only: what runs in a pod that does not know the registry")
	var pairs stringList
	set.Var(&pairs, "tag", "key=value to register; may be repeated")
	_ = set.Parse(args)
	hlog.SetLevel(hlog.LevelWarn)

	tags, err := pairs.tags()
	if err != nil {
		return err
	}
	options := []config.Option{
		hertzserver.WithHostPorts(*address),
		hertzserver.WithTransport(standard.NewTransporter),
		hertzserver.WithExitWaitTime(200 * time.Millisecond),
	}
	if !*silent {
		r, err := hertzetcd.NewEtcdRegistry(where.list())
		if err != nil {
			return err
		}
		options = append(options, hertzserver.WithRegistry(r, &registry.Info{
			ServiceName: where.service,
			Addr:        utils.NewNetAddr("tcp", *address),
			Weight:      *weight,
			Tags:        tags,
		}))
	}
	server := hertzserver.New(options...)
	server.GET("/whoami", func(_ context.Context, c *hertzapp.RequestContext) { c.String(200, *address) })
	server.OnRun = append(server.OnRun, func(context.Context) error {
		say("serving", map[string]any{"address": *address})
		return nil
	})
	// Spin ends at SIGTERM after the framework has deregistered.
	server.Spin()
	return nil
}

// hertzClient calls all the time and says who answered.
func hertzClient(args []string) error {
	set := flag.NewFlagSet("hertz-client", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	interval := set.Duration("interval", 50*time.Millisecond, "time between two calls")
	_ = set.Parse(args)
	hlog.SetLevel(hlog.LevelFatal)

	resolver, err := hertzetcd.NewEtcdResolver(where.list())
	if err != nil {
		return err
	}
	client, err := hertzclient.NewClient(hertzclient.WithDialTimeout(time.Second))
	if err != nil {
		return err
	}
	client.Use(sd.Discovery(resolver))
	say("started", nil)
	for {
		status, body, err := client.GetTimeout(context.Background(), nil, "http://"+where.service+"/whoami", 2*time.Second,
			config.WithSD(true))
		switch {
		case err != nil:
			say("call", map[string]any{"error": err.Error()})
		case status != 200:
			say("call", map[string]any{"error": string(body)})
		default:
			say("call", map[string]any{"from": string(body)})
		}
		time.Sleep(*interval)
	}
}

// hertzResolve asks the framework's own resolver once and says what it returned.
func hertzResolve(args []string) error {
	set := flag.NewFlagSet("hertz-resolve", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	var names stringList
	set.Var(&names, "tag", "a tag to show; may be repeated (an instance does not list its tags)")
	_ = set.Parse(args)
	hlog.SetLevel(hlog.LevelFatal)

	resolver, err := hertzetcd.NewEtcdResolver(where.list())
	if err != nil {
		return err
	}
	key := resolver.Target(context.Background(), &discovery.TargetInfo{Host: where.service})
	result, err := resolver.Resolve(context.Background(), key)
	if err != nil {
		sayResolved(nil, err)
		return nil
	}
	var found []instance
	for _, i := range result.Instances {
		tags := map[string]string{}
		for _, name := range names {
			if value, found := i.Tag(name); found {
				tags[name] = value
			}
		}
		found = append(found, instance{i.Address().Network(), i.Address().String(), i.Weight(), tags})
	}
	sayResolved(found, nil)
	return nil
}
