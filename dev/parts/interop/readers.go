//go:build !kitex

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	kratoskube "github.com/go-kratos/kratos/contrib/registry/kubernetes/v2"
	kitexdns "github.com/kitex-contrib/resolver-dns"
	"github.com/sercand/kuberesolver/v6"
	"github.com/zeromicro/go-zero/core/logx"
	gozeroresolver "github.com/zeromicro/go-zero/zrpc/resolver"
	"google.golang.org/grpc/resolver"
	grpcdns "google.golang.org/grpc/resolver/dns"
	"google.golang.org/grpc/serviceconfig"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Readers that poll do so at this interval.
const pollInterval = 500 * time.Millisecond

// readers are the programs in a cluster that look for instances by themselves, by the names of the flag -kind. Each
// reads one target until it is told to end.
var readers = map[string]func(target string) error{
	// go-zero's zrpc: k8s://namespace/service:port.
	"gozero-k8s": func(target string) error {
		logx.Disable()
		gozeroresolver.Register()
		return followTarget(target)
	},
	// kuberesolver: kubernetes://namespace/service:port.
	"kuberesolver": func(target string) error {
		kuberesolver.RegisterInCluster()
		return followTarget(target)
	},
	// grpc-go: dns:///name:port.
	"grpc-dns": func(target string) error {
		grpcdns.SetMinResolutionInterval(pollInterval)
		return followTarget(target)
	},
	// Kitex with resolver-dns: name:port.
	"kitex-dns": func(target string) error {
		r := kitexdns.NewDNSResolver()
		return poll(func() ([]string, error) {
			result, err := r.Resolve(context.Background(), target)
			return addressesOf(result.Instances), err
		})
	},
	// Kratos' registry of Kubernetes: namespace/app.
	"kratos-kube": func(target string) error {
		namespace, name, _ := strings.Cut(target, "/")
		config, err := rest.InClusterConfig()
		if err != nil {
			return err
		}
		clients, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		registry := kratoskube.NewRegistry(clients, namespace)
		registry.Start()
		return poll(func() ([]string, error) {
			services, err := registry.GetService(context.Background(), name)
			var found []string
			for _, service := range services {
				for _, endpoint := range service.Endpoints {
					if parsed, err := url.Parse(endpoint); err == nil {
						found = append(found, parsed.Host)
					}
				}
			}
			return found, err
		})
	},
	// Go's own resolver, addresses alone: name:port.
	"go-a": func(target string) error {
		name, port, err := net.SplitHostPort(target)
		if err != nil {
			return err
		}
		return poll(func() ([]string, error) {
			hosts, err := net.LookupHost(name)
			for i, host := range hosts {
				hosts[i] = net.JoinHostPort(host, port)
			}
			return hosts, err
		})
	},
	// Go's own resolver, services: the whole name of an SRV record.
	"go-srv": func(target string) error {
		return poll(func() ([]string, error) {
			_, services, err := net.LookupSRV("", "", target)
			var found []string
			for _, service := range services {
				hosts, err := net.LookupHost(service.Target)
				// A target may leave between the two questions.
				if isNotFound(err) {
					continue
				}
				if err != nil {
					return nil, err
				}
				for _, host := range hosts {
					found = append(found, net.JoinHostPort(host, strconv.Itoa(int(service.Port))))
				}
			}
			return found, err
		})
	},
}

// reader runs one of the readers, as in a pod: with the files of a service account where a pod has them.
func reader(args []string) error {
	set := flag.NewFlagSet("reader", flag.ExitOnError)
	kind := set.String("kind", "", "the reader")
	target := set.String("target", "", "the service, as the reader spells it")
	server := set.String("dns", "", "ip:port of the cluster's DNS server")
	_ = set.Parse(args)

	read, found := readers[*kind]
	if !found {
		return fmt.Errorf("no reader %q", *kind)
	}
	// The place of /etc/resolv.conf of a pod.
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, *server)
		},
	}
	go untilToldThenExit()
	return read(*target)
}

func untilToldThenExit() {
	untilTold()
	os.Exit(0)
}

func addressesOf(instances []discovery.Instance) []string {
	var found []string
	for _, instance := range instances {
		found = append(found, instance.Address().String())
	}
	return found
}

var heard struct {
	sync.Mutex
	last string
}

// sayList prints a list that is another one than before.
func sayList(addresses []string, err error) {
	fields := map[string]any{"instances": []string{}}
	if err != nil {
		fields["error"] = err.Error()
	} else if len(addresses) > 0 {
		sort.Strings(addresses)
		fields["instances"] = addresses
	}
	text := fmt.Sprint(fields)
	heard.Lock()
	defer heard.Unlock()
	if text != heard.last {
		heard.last = text
		say("list", fields)
	}
}

func poll(read func() ([]string, error)) error {
	for {
		found, err := read()
		if isNotFound(err) {
			err = nil
		}
		sayList(found, err)
		time.Sleep(pollInterval)
	}
}

// isNotFound tells the answer that there is nothing from no answer.
func isNotFound(err error) bool {
	var lookup *net.DNSError
	return errors.As(err, &lookup) && lookup.IsNotFound
}

// connection hears of a resolver's addresses in the place of a gRPC channel.
type connection struct{ resolver.ClientConn }

func (connection) UpdateState(state resolver.State) error {
	var found []string
	for _, address := range state.Addresses {
		found = append(found, address.Addr)
	}
	if len(found) == 0 {
		for _, endpoint := range state.Endpoints {
			for _, address := range endpoint.Addresses {
				found = append(found, address.Addr)
			}
		}
	}
	sayList(found, nil)
	return nil
}

func (connection) ReportError(err error) { sayList(nil, err) }

func (connection) NewAddress([]resolver.Address) {}

func (connection) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{}
}

// followTarget asks the resolver of a target's scheme, and asks it again all the time, as a channel does whose
// connections fail.
func followTarget(target string) error {
	parsed, err := url.Parse(target)
	if err != nil {
		return err
	}
	builder := resolver.Get(parsed.Scheme)
	if builder == nil {
		return fmt.Errorf("no resolver for %q", target)
	}
	built, err := builder.Build(resolver.Target{URL: *parsed}, connection{}, resolver.BuildOptions{})
	if err != nil {
		return err
	}
	for {
		time.Sleep(pollInterval)
		built.ResolveNow(resolver.ResolveNowOptions{})
	}
}
