// Command interop holds programs that use a real RPC framework and its own etcd
// registry client, exactly as a user would: what Twinspan writes must work for
// them, and what they write must work for Twinspan.
//
// Every program prints one JSON object a line on standard output and nothing
// else there, so that a test can read it while the program runs.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sort"
	"strings"
	"sync"
	"syscall"
)

// The programs by their names; with the build tag kitex these alone, which compile in a third of the time.
var programs = map[string]func(args []string) error{
	"kitex-server":  kitexServer,
	"kitex-client":  kitexClient,
	"kitex-resolve": kitexResolve,
}

func main() {
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: interop kitex|hertz|kratos|gozero|goframe|grpc-server|client|resolve, or reader [flags]")
		os.Exit(2)
	}
	if err := programs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// stringList is a flag that may be given several times.
type stringList []string

func (l *stringList) String() string     { return strings.Join(*l, ",") }
func (l *stringList) Set(v string) error { *l = append(*l, v); return nil }

// tags parses k=v pairs; no pairs are no map, which is what a user who sets no tags passes.
func (l stringList) tags() (map[string]string, error) {
	if len(l) == 0 {
		return nil, nil
	}
	tags := map[string]string{}
	for _, pair := range l {
		key, value, found := strings.Cut(pair, "=")
		if !found {
			return nil, fmt.Errorf("-tag %q: want key=value", pair)
		}
		tags[key] = value
	}
	return tags, nil
}

// etcdFlags are what every program needs to reach a registry.
type etcdFlags struct{ service, endpoints, prefix string }

func (f *etcdFlags) register(set *flag.FlagSet) {
	set.StringVar(&f.service, "service", "", "name of the service in the registry")
	set.StringVar(&f.endpoints, "etcd", "", "etcd endpoints, comma separated")
	set.StringVar(&f.prefix, "prefix", "", "key prefix; empty is the framework's default")
}

func (f *etcdFlags) list() []string { return strings.Split(f.endpoints, ",") }

// key is where the records lie for the frameworks that have no prefix of their own.
func (f *etcdFlags) key() string {
	if f.prefix == "" {
		return f.service
	}
	return f.prefix + "/" + f.service
}

// instance is what a resolver returned, in words that all frameworks share.
type instance struct {
	Network string            `json:"network"`
	Address string            `json:"address"`
	Weight  int               `json:"weight"`
	Tags    map[string]string `json:"tags"`
}

func sayResolved(found []instance, err error) {
	fields := map[string]any{"instances": []instance{}}
	if err != nil {
		fields["error"] = err.Error()
	} else if len(found) > 0 {
		sort.Slice(found, func(a, b int) bool { return found[a].Address < found[b].Address })
		fields["instances"] = found
	}
	say("resolved", fields)
}

// untilTold ends at SIGTERM or SIGINT, as a framework's own main loop does.
func untilTold() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	<-told
}

// listen accepts connections and keeps them open: what a server does that has nothing to say.
func listen(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			if _, err := listener.Accept(); err != nil {
				return
			}
		}
	}()
	return nil
}

var output sync.Mutex

func say(event string, fields map[string]any) {
	line := map[string]any{"event": event}
	for k, v := range fields {
		line[k] = v
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(text))
}
