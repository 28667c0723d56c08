// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
)

// Join has several processes on one bucket hear of each other's versions at once, through a NATS server. A message only says that there is something to look
// for: the bucket alone says what is current, so that a lost message costs time (Config.Poll) and a forged one nothing.
func (h *Hub) Join(url, subject string) (leave func(), err error) {
	conn, err := nats.Connect(url, nats.Name("fromage"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
		nats.ReconnectHandler(func(*nats.Conn) { h.Look() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { h.c.Log.Warn("nats", "error", err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { h.c.Log.Warn("nats: disconnected", "error", err) }))
	if err != nil {
		return nil, fmt.Errorf("hub: nats: %w", err)
	}
	if _, err := conn.Subscribe(subject, func(*nats.Msg) { h.Look() }); err != nil {
		conn.Close()
		return nil, fmt.Errorf("hub: nats: %w", err)
	}
	h.announce = func(seq uint64) {
		if err := conn.Publish(subject, strconv.AppendUint(nil, seq, 10)); err != nil {
			h.c.Log.Warn("nats", "error", err)
		}
	}
	return conn.Close, nil
}
