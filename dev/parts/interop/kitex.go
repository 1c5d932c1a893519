package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/genericclient"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/generic"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/server/genericserver"
	etcd "github.com/kitex-contrib/registry-etcd"
)

// A generic service needs no generated code: the framework, its transport and
// its registry client are the real ones all the same.
const idl = `
namespace go whoami
service Whoami { string Whoami(1: string caller) }
`

func whoami() (generic.Generic, error) {
	provider, err := generic.NewThriftContentProvider(idl, nil)
	if err != nil {
		return nil, err
	}
	return generic.JSONThriftGeneric(provider)
}

// answerer tells each caller the address that it listens on.
type answerer struct{ address string }

func (a *answerer) GenericCall(context.Context, string, interface{}) (interface{}, error) {
	// The framework wants JSON here, and hands the client a bare string.
	text, err := json.Marshal(a.address)
	return string(text), err
}

func kitexServer(args []string) error {
	set := flag.NewFlagSet("kitex-server", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	listen := set.String("listen", "", "ip:port to listen on and to register")
	weight := set.Int("weight", 0, "weight to register; 0 is the framework's default")
	silent := set.Bool("no-register", false, "answer only: what runs in a pod that does not know the registry")
	var pairs stringList
	set.Var(&pairs, "tag", "key=value to register; may be repeated")
	_ = set.Parse(args)
	klog.SetLevel(klog.LevelWarn)

	address, err := net.ResolveTCPAddr("tcp", *listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	tags, err := pairs.tags()
	if err != nil {
		return err
	}
	g, err := whoami()
	if err != nil {
		return err
	}
	options := []server.Option{
		server.WithServiceAddr(address),
		server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: where.service}),
		server.WithExitWaitTime(200 * time.Millisecond),
	}
	if !*silent {
		var registryOptions []etcd.Option
		if where.prefix != "" {
			registryOptions = append(registryOptions, etcd.WithEtcdServicePrefix(where.prefix))
		}
		r, err := etcd.NewEtcdRegistry(where.list(), registryOptions...)
		if err != nil {
			return err
		}
		options = append(options, server.WithRegistry(r), server.WithRegistryInfo(&registry.Info{Weight: *weight, Tags: tags}))
	}
	server.RegisterStartHook(func() { say("serving", map[string]any{"address": *listen}) })
	// Run ends at SIGTERM after the framework has deregistered, as it does for any Kitex server.
	return genericserver.NewServer(&answerer{*listen}, g, options...).Run()
}

// laneResolver leaves out what does not have a tag, as clients do that choose a
// lane. The framework's own resolver does the rest.
type laneResolver struct {
	discovery.Resolver
	tag, value string
}

func (r laneResolver) Resolve(ctx context.Context, service string) (discovery.Result, error) {
	result, err := r.Resolver.Resolve(ctx, service)
	if err != nil {
		return result, err
	}
	var lane []discovery.Instance
	for _, i := range result.Instances {
		if value, found := i.Tag(r.tag); found && value == r.value {
			lane = append(lane, i)
		}
	}
	result.Instances = lane
	return result, nil
}

func kitexResolver(where etcdFlags) (discovery.Resolver, error) {
	if where.prefix == "" {
		return etcd.NewEtcdResolver(where.list())
	}
	return etcd.NewEtcdResolver(where.list(), etcd.WithEtcdServicePrefix(where.prefix))
}

// calledKey is where a call's context has the address that the load balancer chose.
type calledKey struct{}

// noteCalled keeps the chosen address, which the error of a failed call does not always name.
func noteCalled(next endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, request, response interface{}) error {
		called, noted := ctx.Value(calledKey{}).(*atomic.Value)
		if to := rpcinfo.GetRPCInfo(ctx).To(); noted && to != nil && to.Address() != nil {
			called.Store(to.Address().String())
		}
		return next(ctx, request, response)
	}
}

// callInterval is the time between two calls of a client.
const callInterval = 50 * time.Millisecond

// kitexClient calls all the time and says who answered, whom a failed call was
// for, and how many milliseconds each call took: its load balancer polls the
// registry every 5 s, as any Kitex client's does. With -host it knows no
// registry and calls a name or an address, as programs in pods do. With -tally
// it says after so many calls how many went to whom, and of single calls those
// alone that failed. With -rate calls begin at their times, whatever became of
// those before.
func kitexClient(args []string) error {
	set := flag.NewFlagSet("kitex-client", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	host := set.String("host", "", "host:port to call instead of what the registry has")
	interval := set.Duration("interval", callInterval, "time between two calls")
	rate := set.Int("rate", 0, "calls that begin in a second; 0 makes one after the other")
	lane := set.String("lane", "", "key=value: call only instances with this tag")
	every := set.Int("tally", 0, "count this many calls instead of telling each")
	_ = set.Parse(args)
	klog.SetLevel(klog.LevelError)

	target := client.WithHostPorts(*host)
	if *host == "" {
		resolver, err := kitexResolver(where)
		if err != nil {
			return err
		}
		if tag, value, found := strings.Cut(*lane, "="); found {
			resolver = laneResolver{resolver, tag, value}
		}
		target = client.WithResolver(resolver)
	}
	g, err := whoami()
	if err != nil {
		return err
	}
	caller, err := genericclient.NewClient(where.service, g,
		target,
		client.WithInstanceMW(noteCalled),
		client.WithConnectTimeout(time.Second),
		client.WithRPCTimeout(callTimeout))
	if err != nil {
		return err
	}
	say("started", nil)
	tally := newTally(*every)
	call := func() {
		// A timed-out call may still be noting its address while the next one goes on.
		called := new(atomic.Value)
		began := time.Now()
		answer, err := caller.GenericCall(context.WithValue(context.Background(), calledKey{}, called), "Whoami", `"client"`)
		if *every > 0 {
			tally.count(called, err)
		}
		told := map[string]any{"took": time.Since(began).Milliseconds()}
		switch {
		case err != nil:
			told["error"], told["to"] = err.Error(), called.Load()
			say("call", told)
		case *every == 0:
			told["from"] = answer
			say("call", told)
		}
	}
	if *rate > 0 {
		// The timeout of a call bounds how many there are at once.
		for range time.Tick(time.Second / time.Duration(*rate)) {
			go call()
		}
	}
	for {
		call()
		time.Sleep(*interval)
	}
}

// callTimeout is the time that a call may take.
const callTimeout = 2 * time.Second

// tally counts calls by the address that the load balancer chose, whether or not
// it answered.
type tally struct {
	sync.Mutex
	every, calls, failed int
	to                   map[string]int
}

func newTally(every int) *tally { return &tally{every: every, to: map[string]int{}} }

func (t *tally) count(called *atomic.Value, err error) {
	t.Lock()
	defer t.Unlock()
	t.calls++
	if err != nil {
		t.failed++
	}
	if address, noted := called.Load().(string); noted {
		t.to[address]++
	}
	if t.calls == t.every {
		say("tally", map[string]any{"calls": t.calls, "failed": t.failed, "to": t.to})
		t.calls, t.failed, t.to = 0, 0, map[string]int{}
	}
}

// kitexResolve asks the framework's own resolver once and says what it returned.
func kitexResolve(args []string) error {
	set := flag.NewFlagSet("kitex-resolve", flag.ExitOnError)
	var where etcdFlags
	where.register(set)
	var names stringList
	set.Var(&names, "tag", "a tag to show; may be repeated (an instance does not list its tags)")
	_ = set.Parse(args)
	klog.SetLevel(klog.LevelError)

	resolver, err := kitexResolver(where)
	if err != nil {
		return err
	}
	result, err := resolver.Resolve(context.Background(), where.service)
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
