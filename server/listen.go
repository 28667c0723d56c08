// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// patience is how long a shutdown waits for answers that are being sent.
const patience = 3 * time.Second

// Listen opens the address to be served at, such as 127.0.0.1:8080 or :0.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("server: listen on %s: the port is in use, perhaps by another fromage serve: choose another, :0 for any free one", address)
	}
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return l, nil
}

// LoopbackHosts returns the names that a listener on a loopback address is called by, and nil for any other address.
func LoopbackHosts(address net.Addr) []string {
	tcp, ok := address.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return nil
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if ip := tcp.IP.String(); ip != hosts[1] && ip != hosts[2] {
		hosts = append(hosts, ip)
	}
	return hosts
}

// Serve answers until ctx ends, then lets what is being sent end for a few seconds. Ending by ctx is no error.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		// A model of some gigabytes over a slow line takes its time.
		WriteTimeout: 2 * time.Hour, MaxHeaderBytes: 64 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("server: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if s.Shutdown(last) != nil {
		_ = s.Close() // cuts off what was still being sent
	}
	<-ended
	return nil
}
