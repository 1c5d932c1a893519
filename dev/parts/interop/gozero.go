package main

import (
	"flag"
	"time"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/proc"
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

	if err := listen(*address); err != nil {
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
