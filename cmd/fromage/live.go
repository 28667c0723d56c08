// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	_ "gocloud.dev/blob/s3blob" // --data s3://…

	"fromage/assets"
	"fromage/server"
	"fromage/server/client"
	"fromage/server/hub"
	"fromage/server/store"
)

// living is what fromage serve was told of versions.
type living struct {
	data, tokens, audit    string
	upstream, nats         string
	origins                []string
	clients, perAddress    int
	forwarded, metrics     bool
	empty                  bool
	certificate, secretKey string
}

func (l *living) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&l.data, "data", "", "serve versions that are kept in this `FOLDER` or bucket (s3://NAME?region=…), with the embedded model as the first")
	flags.BoolVar(&l.empty, "empty", false, "with --data: begin without a model")
	flags.StringVar(&l.tokens, "tokens", "", "with --data: a `FILE` of tokens that may publish, made by fromage admin token (default: nobody may)")
	flags.StringVar(&l.audit, "audit", "", "with --data: append who published what, and who was refused, to this `FILE` (default: the log)")
	flags.StringVar(&l.upstream, "upstream", "", "with --data: be a mirror of the server at this `URL`")
	flags.StringVar(&l.nats, "nats", "", "with --data: tell and hear of new versions through the NATS server at this `URL`")
	flags.StringSliceVar(&l.origins, "origin", nil, "with --data: pages of these `ORIGIN`s may connect too, such as https://example.org")
	flags.IntVar(&l.clients, "max-clients", 10_000, "with --data: most connections")
	flags.IntVar(&l.perAddress, "max-per-address", 256, "with --data: most connections of one address")
	flags.BoolVar(&l.forwarded, "behind-proxy", false, "with --data: the address is what a proxy puts last in X-Forwarded-For")
	flags.BoolVar(&l.metrics, "metrics", false, "with --data: serve /metrics to others than this machine too")
	flags.StringVar(&l.certificate, "tls-cert", "", "a `FILE` with the certificate for https, as PEM")
	flags.StringVar(&l.secretKey, "tls-key", "", "the `FILE` with its key")
}

// check refuses flags that say nothing without --data.
func (l *living) check() error {
	for _, f := range []struct {
		name string
		set  bool
	}{{"tokens", l.tokens != ""}, {"audit", l.audit != ""}, {"upstream", l.upstream != ""}, {"nats", l.nats != ""}, {"origin", l.origins != nil}, {"empty", l.empty}} {
		if f.set {
			return fmt.Errorf("--%s: want --data with it", f.name)
		}
	}
	return nil
}

// secure puts TLS on a listener, if that is asked for.
func (l *living) secure(plain net.Listener, url string) (net.Listener, string, error) {
	if (l.certificate == "") != (l.secretKey == "") {
		return nil, "", errors.New("--tls-cert and --tls-key: want both or none")
	}
	if l.certificate == "" {
		return plain, url, nil
	}
	pair, err := tls.LoadX509KeyPair(l.certificate, l.secretKey)
	if err != nil {
		return nil, "", fmt.Errorf("--tls-cert: %w", err)
	}
	// A websocket begins as HTTP/1.1.
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	return tls.NewListener(plain, c), "https" + strings.TrimPrefix(url, "http"), nil
}

// serveLive opens the store of versions and its hub, which end with the program.
func (a *app) serveLive(ctx context.Context, s serving) (*server.Live, error) {
	if len(s.models) > 0 || len(s.gallery) > 0 || s.pictures != "" {
		return nil, errors.New("--data: want no --models, --gallery and --pictures with it: fromage push puts them there")
	}
	l := s.live
	tokens, err := readTokens(l.tokens)
	if err != nil {
		return nil, err
	}
	if l.upstream != "" && tokens != nil {
		return nil, errors.New("--upstream: want no --tokens with it: publish to the upstream")
	}
	st, err := store.Open(ctx, l.data)
	if err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	a.atEnd(func() { st.Close() })
	header, err := embeddedHeader()
	if err != nil {
		return nil, err
	}
	if err := a.seed(ctx, st, l); err != nil {
		return nil, err
	}
	c := hub.Config{Store: st, Tokens: tokens, Log: a.log, Audit: a.log, Origins: l.origins, MaxClients: l.clients, MaxPerAddress: l.perAddress, Forwarded: l.forwarded}
	if l.audit != "" {
		f, err := os.OpenFile(l.audit, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("--audit: %w", err)
		}
		a.atEnd(func() { f.Close() })
		c.Audit = slog.New(slog.NewJSONHandler(f, nil))
	}
	h, err := hub.New(ctx, c)
	if err != nil {
		return nil, err
	}
	live := &server.Live{Hub: h, Store: st, Embedded: hex.EncodeToString(header[32:64])}
	a.atEnd(func() { _ = live.Close() }) // what does not end in time is cut off with the program
	if l.nats != "" {
		leave, err := h.Join(l.nats, natsSubject)
		if err != nil {
			return nil, fmt.Errorf("--nats: %w", err)
		}
		a.atEnd(leave)
	}
	if l.upstream != "" {
		return live, a.mirror(ctx, l.upstream, st, h)
	}
	return live, nil
}

// natsSubject is what new versions are told under.
const natsSubject = "fromage.versions"

func readTokens(path string) (hub.Tokens, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--tokens: %w", err)
	}
	defer f.Close()
	all, err := hub.ReadTokens(f)
	if err != nil {
		return nil, fmt.Errorf("--tokens: %s: %w", path, err)
	}
	return all, nil
}

func embeddedHeader() ([]byte, error) {
	r, _, err := assets.Open(assets.BundleFile)
	if err != nil {
		return nil, err
	}
	header := make([]byte, 64)
	_, err = r.ReadAt(header, 0)
	return header, err
}

// seed publishes the embedded model where there is nothing.
func (a *app) seed(ctx context.Context, st *store.Store, l living) error {
	v, last, err := st.Current(ctx)
	if err != nil || v != nil || last > 0 || l.empty || l.upstream != "" {
		return err
	}
	p := client.To(st, "fromage serve")
	r, size, err := assets.Open(assets.BundleFile)
	if err != nil {
		return err
	}
	if _, err := p.Bundle(ctx, "default", "Demonstration model", "the embedded model", r, size); err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "fromage: %s was empty and has the embedded model now; its pictures: fromage push gallery add --embedded --to %s\n", l.data, l.data)
	return nil
}

// mirror follows a server in the background, until ctx ends.
func (a *app) mirror(ctx context.Context, url string, st *store.Store, h *hub.Hub) error {
	p := &client.Puller{Options: client.Options{URL: url, Name: "fromage serve --upstream"}, Store: st}
	p.Failed = func(err error, wait time.Duration) { a.log.Warn("upstream", "error", err, "again_in", wait) }
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Follow(ctx, func(v *store.Version) { h.Look() }); err != nil && ctx.Err() == nil {
			fmt.Fprintln(a.stderr, "fromage: upstream:", err)
			a.log.Error("upstream", "error", err)
		}
	}()
	a.atEnd(func() {
		stop()
		<-done
	})
	return nil
}
