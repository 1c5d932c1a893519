//go:build !kitex

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	goframeetcd "github.com/gogf/gf/contrib/registry/etcd/v2"
	"github.com/gogf/gf/v2/frame/g"
	"github.com/gogf/gf/v2/net/gclient"
	"github.com/gogf/gf/v2/net/ghttp"
	"github.com/gogf/gf/v2/net/gsvc"
	"github.com/gogf/gf/v2/os/gctx"
)

// goframeRegistry reaches the registry. A prefix is /prefix/deployment/namespace, which GoFrame takes from the
// environment.
func goframeRegistry(where etcdFlags) (gsvc.Registry, error) {
	g.Log().SetStdoutPrint(false)
	if where.prefix != "" {
		parts := strings.Split(strings.Trim(where.prefix, "/"), "/")
		if len(parts) != 3 {
			return nil, fmt.Errorf("-prefix %q: want /prefix/deployment/namespace", where.prefix)
		}
		for i, name := range []string{gsvc.EnvPrefix, gsvc.EnvDeployment, gsvc.EnvNamespace} {
			if err := os.Setenv(name, parts[i]); err != nil {
				return nil, err
			}
		}
	}
	return goframeetcd.New(where.endpoints), nil
}

// goframeServer is a whole HTTP server of GoFrame, which tells each caller the address that it listens on.
func goframeServer(args []string) error {
	set := flag.NewFlagSet("goframe-server", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	address := set.String("listen", "", "ip:port to listen on and to register")
	silent := set.Bool("no-register", false, "answer only: what runs in a pod that does not know the registry")
	_ = set.Parse(args)

	server := ghttp.GetServer(where.service)
	server.SetName(where.service)
	server.SetAddr(*address)
	server.SetDumpRouterMap(false)
	server.SetLogStdout(false)
	server.BindHandler("/whoami", func(r *ghttp.Request) { r.Response.Write(*address) })
	if !*silent {
		registry, err := goframeRegistry(where)
		if err != nil {
			return err
		}
		server.SetRegistrar(registry)
	}
	if err := server.Start(); err != nil {
		return err
	}
	say("serving", map[string]any{"address": *address})
	// Ends at SIGTERM, after the framework has deregistered.
	ghttp.Wait()
	return nil
}

// goframeClient calls all the time and says who answered.
func goframeClient(args []string) error {
	set := flag.NewFlagSet("goframe-client", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	interval := set.Duration("interval", 50*time.Millisecond, "time between two calls")
	_ = set.Parse(args)

	registry, err := goframeRegistry(where)
	if err != nil {
		return err
	}
	client := gclient.New().Discovery(registry).Timeout(2 * time.Second)
	say("started", nil)
	for {
		response, err := client.Get(context.Background(), "http://"+where.service+"/whoami")
		switch {
		case err != nil:
			say("call", map[string]any{"error": err.Error()})
		case response.StatusCode != 200:
			say("call", map[string]any{"error": response.Status})
		default:
			say("call", map[string]any{"from": response.ReadAllString()})
		}
		if response != nil {
			_ = response.Close()
		}
		time.Sleep(*interval)
	}
}

// goframeResolve asks the framework's own discovery once: one line for each endpoint, with the metadata that the
// framework keeps for all of a version.
func goframeResolve(args []string) error {
	set := flag.NewFlagSet("goframe-resolve", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	var names stringList
	set.Var(&names, "tag", "metadata to show; may be repeated")
	_ = set.Parse(args)

	registry, err := goframeRegistry(where)
	if err != nil {
		return err
	}
	// GoFrame's clients search for the whole prefix of a name without a version (gsvc.GetAndWatch).
	wanted := gsvc.NewServiceWithName(where.service)
	services, err := registry.Search(gctx.New(), gsvc.SearchInput{Prefix: wanted.GetPrefix(), Name: where.service})
	if err != nil {
		sayResolved(nil, err)
		return nil
	}
	var found []instance
	for _, service := range services {
		tags := map[string]string{}
		for _, name := range names {
			if value := service.GetMetadata().Get(name); !value.IsNil() {
				tags[name] = value.String()
			}
		}
		weight := service.GetMetadata().Get(gsvc.MDWeight).Int()
		for _, endpoint := range service.GetEndpoints() {
			found = append(found, instance{"tcp", endpoint.String(), weight, tags})
		}
	}
	sayResolved(found, nil)
	return nil
}
