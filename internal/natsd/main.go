// SPDX-License-Identifier: Apache-2.0

// Command natsd is a NATS server at an address, for the cluster's demonstration.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "natsd:", err)
		os.Exit(2)
	}
}

func serve(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want an address, have %d arguments", len(args))
	}
	host, port, err := net.SplitHostPort(args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{Host: host, Port: n, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	s.WaitForShutdown()
	return nil
}
