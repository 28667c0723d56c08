// SPDX-License-Identifier: Apache-2.0

package hub_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	_ "gocloud.dev/blob/s3blob"

	"fromage/server/client"
	"fromage/server/hub"
	"fromage/server/internal/fixture"
	"fromage/server/store"
)

// natsServer starts a NATS server at a free port and returns its address and what stops it.
func natsServer(t *testing.T, port int) (url string, stop func()) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(s.Shutdown)
	return s.ClientURL(), s.Shutdown
}

// s3Server starts versitygw, an S3 server, in a process of its own over a folder, and returns a bucket's URL. Where the program is not there the test is
// skipped, loudly, and fails where FROMAGE_REQUIRE_S3 is 1: go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 makes it.
func s3Server(t *testing.T) string {
	t.Helper()
	exe := os.Getenv("FROMAGE_VERSITYGW")
	if exe == "" {
		exe = "versitygw"
	}
	exe, err := exec.LookPath(exe)
	if err != nil {
		if os.Getenv("FROMAGE_REQUIRE_S3") == "1" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, NOTHING TESTED: %v (make versitygw builds it)", err)
	}
	dir, sidecar := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "versions"), 0o777); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	c := exec.Command(exe, "--access", "fromage", "--secret", "a secret of tests", "--port", address, "posix", "--sidecar", sidecar, dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "fromage")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "a secret of tests")
	t.Setenv("AWS_REGION", "us-east-1")
	return "s3://versions?endpoint=http://" + address + "&use_path_style=true"
}

// TestStoreOnS3: the store's guarantees hold over an S3 server: publishing at the same time, damage, collection.
func TestStoreOnS3(t *testing.T) {
	url := s3Server(t)
	p, err := client.Open(ctx, url, "", "one")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	data := fixture.Bundle(t)
	if _, err := p.Bundle(ctx, "tiny", "", "", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	const each = 4
	errs := make(chan error, 2*each)
	for k := range 2 {
		go func() {
			p, err := client.Open(ctx, url, "", fmt.Sprint("publisher ", k))
			for n := range each {
				if err == nil {
					_, err = p.Heads(ctx, "tiny", "", fixture.Heads(t, data, uint64(10*k+n)))
				}
				errs <- err
			}
		}()
	}
	for range 2 * each {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, _, err := s.Current(ctx)
	if err != nil || v.Seq != 1+2*each {
		t.Fatalf("after %d publishes: version %d, %v", 1+2*each, v.Seq, err)
	}
	done, err := s.Collect(ctx, 1, 0)
	if err != nil || done.Versions != 2*each || done.Pieces == 0 {
		t.Errorf("Collect = %+v, %v, want %d versions dropped", done, err, 2*each)
	}
	if bad, err := s.Audit(ctx, v.Manifest); err != nil || len(bad) > 0 {
		t.Errorf("after Collect %d pieces are missing, %v", len(bad), err)
	}
}

// TestCluster: servers on one bucket, which hear of each other by NATS alone, serve what is published to any of them, and go on when one is killed.
func TestCluster(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(t *testing.T) string
	}{{"folder", func(t *testing.T) string { return t.TempDir() }}, {"S3", s3Server}} {
		t.Run(c.name, func(t *testing.T) { cluster(t, c.open(t)) })
	}
}

func cluster(t *testing.T, bucket string) {
	url, stop := natsServer(t, -1)
	var urls []string
	var hubs []*hub.Hub
	for range 3 {
		s, err := store.Open(ctx, bucket)
		if err != nil {
			t.Fatal(err)
		}
		h, srv := serve(t, hub.Config{Store: s, Poll: time.Hour}) // so that only NATS tells
		leave, err := h.Join(url, "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(leave)
		hubs, urls = append(hubs, h), append(urls, srv.URL)
	}
	first := publishBundle(t, urls[0])
	wait := func(seq uint64, some ...*hub.Hub) {
		t.Helper()
		for _, h := range some {
			for end := time.Now().Add(20 * time.Second); h.Current() == nil || h.Current().Seq < seq; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("a server did not come to version %d", seq)
				}
			}
		}
	}
	wait(1, hubs...)
	heads := func(p *client.Publisher, seed uint64) uint64 {
		t.Helper()
		v, err := p.Heads(ctx, "tiny", "", fixture.Heads(t, fixture.Bundle(t), seed))
		if err != nil {
			t.Fatal(err)
		}
		return v.Seq
	}
	began := time.Now()
	wait(heads(first, 1), hubs...)
	t.Logf("all servers had the version %v after its publish began", time.Since(began).Round(time.Millisecond))
	last, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := hubs[0].Close(last); err != nil {
		t.Fatal(err)
	}
	second, err := client.Open(ctx, urls[1], secret, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	wait(heads(second, 2), hubs[1:]...)
	stop() // without NATS nothing is lost: who looks finds it
	seq := heads(second, 3)
	hubs[2].Look()
	wait(seq, hubs[1:]...)
}
