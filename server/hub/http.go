// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"fromage/server/wire"
)

// ServeVersion answers with the current version's document, whose entity tag is its name.
func (h *Hub) ServeVersion(w http.ResponseWriter, r *http.Request) {
	v := h.Current()
	if v == nil {
		http.Error(w, "nothing was published yet", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", `"`+v.ID.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(v.Document))
}

// ServePiece answers with the piece that the path value hash names, whole or in ranges; it may be kept for good.
func (h *Hub) ServePiece(w http.ResponseWriter, r *http.Request) {
	var hash wire.Hash
	if err := hash.UnmarshalText([]byte(r.PathValue("hash"))); err != nil {
		http.NotFound(w, r)
		return
	}
	data, err := h.c.Store.Get(r.Context(), hash)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("ETag", `"`+hash.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// ServeHealth answers 200 while the store can be read.
func (h *Hub) ServeHealth(w http.ResponseWriter, r *http.Request) {
	var doc struct {
		OK      bool   `json:"ok"`
		Seq     uint64 `json:"seq"`
		Clients int    `json:"clients"`
		Error   string `json:"error,omitempty"`
	}
	if v := h.Current(); v != nil {
		doc.Seq = v.Seq
	}
	h.mu.Lock()
	doc.Clients = len(h.peers)
	h.mu.Unlock()
	status := http.StatusOK
	if _, _, err := h.c.Store.Current(r.Context()); err != nil {
		h.c.Log.Error("health", "error", err)
		status, doc.Error = http.StatusServiceUnavailable, "the store cannot be read"
	}
	doc.OK = status == http.StatusOK
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc) // the client may be gone
}

// Metrics serves the hub's counters in Prometheus' format.
func (h *Hub) Metrics() http.Handler {
	return promhttp.HandlerFor(h.metrics.registry, promhttp.HandlerOpts{})
}

type metrics struct {
	registry                    *prometheus.Registry
	clients, version            prometheus.Gauge
	sent, received, storeErrors prometheus.Counter
	published, dropped          *prometheus.CounterVec
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "fromage", Subsystem: "sync", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "fromage", Subsystem: "sync", Name: name, Help: help}
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		clients:  gauge("clients", "Connections that are open."), version: gauge("version", "Number of the current version."),
		sent:        prometheus.NewCounter(counter("sent_bytes_total", "Bytes of frames sent.")),
		received:    prometheus.NewCounter(counter("received_bytes_total", "Bytes of pieces received from publishers.")),
		storeErrors: prometheus.NewCounter(counter("store_errors_total", "Times the store failed.")),
		published:   prometheus.NewCounterVec(counter("publishes_total", "Changes, by what became of them."), []string{"result"}),
		dropped:     prometheus.NewCounterVec(counter("dropped_total", "Connections that the server ended, by reason."), []string{"reason"}),
	}
	m.registry.MustRegister(m.clients, m.version, m.sent, m.received, m.storeErrors, m.published, m.dropped, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}
