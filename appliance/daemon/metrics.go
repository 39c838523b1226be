package daemon

import (
	"context"
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"chancery/appliance/limit"
)

// metrics are chanceryd's, with what the signer tells at each scrape. Labels are
// endpoints, outcomes, keys and listeners: never an offer's, a person's or a
// wallet's.
type metrics struct {
	d        *appliance
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  *prometheus.CounterVec

	mu           sync.Mutex // guards what follows
	certificates []*certificate
	connections  map[string]*limit.Connections // by listener
}

// Descriptions of what is asked for at each scrape.
var (
	signerUp         = prometheus.NewDesc("chancery_signer_up", "Whether the signer answers.", nil, nil)
	signerReady      = prometheus.NewDesc("chancery_signer_ready", "Whether the signer's token works.", nil, nil)
	signerKeyReady   = prometheus.NewDesc("chancery_signer_key_ready", "Whether the last periodic signature with the key succeeded.", []string{"key"}, nil)
	signerSignatures = prometheus.NewDesc("chancery_signer_signatures_total", "Signatures answered since the signer started.", nil, nil)
	signerQueue      = prometheus.NewDesc("chancery_signer_queue", "Requests that wait for the token.", nil, nil)
	signerQueueLimit = prometheus.NewDesc("chancery_signer_queue_limit", "Requests that may wait for the token.", nil, nil)
	logEntries       = prometheus.NewDesc("chancery_audit_log_entries", "Entries in the audit log.", nil, nil)
	logCovered       = prometheus.NewDesc("chancery_audit_log_checkpoint_entries", "Entries under the newest checkpoint.", nil, nil)
	outboxBacklog    = prometheus.NewDesc("chancery_outbox_backlog", "Events that the audit log does not have yet.", nil, nil)
	connectionsOpen  = prometheus.NewDesc("chancery_connections", "Open connections of the listener.", []string{"listener"}, nil)
	connectionsLimit = prometheus.NewDesc("chancery_connections_limit", "Connections of the listener that may be open.", []string{"listener"}, nil)
	connectionsOver  = prometheus.NewDesc("chancery_refused_connections_total", "Connections closed at once because their address held a quarter of the limit.", []string{"listener"}, nil)
	tlsNotAfter      = prometheus.NewDesc("chancery_tls_certificate_not_after_seconds", "End of the listener's certificate, Unix time.", []string{"listener"}, nil)
	keyNotAfter      = prometheus.NewDesc("chancery_key_certificate_not_after_seconds", "End of the key's certificate, Unix time.", []string{"key", "purpose"}, nil)
	crlNextUpdate    = prometheus.NewDesc("chancery_crl_next_update_seconds", "When the IACA's revocation list must be replaced, Unix time.", []string{"key"}, nil)
)

func newMetrics(d *appliance) *metrics {
	m := &metrics{d: d, registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chancery_requests_total", Help: "Requests of wallets by endpoint and outcome."}, []string{"endpoint", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "chancery_request_duration_seconds", Help: "Time of wallets' requests by endpoint.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}}, []string{"endpoint"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chancery_refused_requests_total",
			Help: "Requests refused because the client's address asked for too much, by class: read (GET) or write (POST)."}, []string{"class"}),
		connections: map[string]*limit.Connections{},
	}
	m.registry.MustRegister(m.requests, m.duration, m.refused, m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// observe counts a wallet's request.
func (m *metrics) observe(endpoint, outcome string, took time.Duration) {
	m.requests.WithLabelValues(endpoint, outcome).Inc()
	m.duration.WithLabelValues(endpoint).Observe(took.Seconds())
}

// refuse counts a request that was over its address's rate. Which address it was
// is not kept.
func (m *metrics) refuse(class string) { m.refused.WithLabelValues(class).Inc() }

// count adds a listener's connections.
func (m *metrics) count(listener string, c *limit.Connections) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connections[listener] = c
}

// watch adds a listener's certificate.
func (m *metrics) watch(c *certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.certificates = append(m.certificates, c)
}

// Describe sends nothing: what is there depends on the signer.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect asks the signer, the database and the certificates.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusWithin)
	defer cancel()
	status, err := m.d.status(ctx)
	gauge(signerUp, number(err == nil))
	gauge(signerReady, number(err == nil && status.State == "ready"))
	if err == nil {
		for label, ready := range status.Keys {
			gauge(signerKeyReady, number(ready), label)
		}
		out <- prometheus.MustNewConstMetric(signerSignatures, prometheus.CounterValue, float64(status.Signatures))
		gauge(signerQueue, float64(status.Queue))
		gauge(signerQueueLimit, float64(status.QueueLimit))
		gauge(logEntries, float64(status.LogSize))
		gauge(logCovered, float64(status.CheckpointSize))
	}
	if n, err := m.d.store.Backlog(ctx); err == nil {
		gauge(outboxBacklog, float64(n))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for listener, c := range m.connections {
		gauge(connectionsOpen, float64(c.Open()), listener)
		gauge(connectionsLimit, float64(c.Limit()), listener)
		out <- prometheus.MustNewConstMetric(connectionsOver, prometheus.CounterValue, float64(c.Refused()), listener)
	}
	for _, c := range m.certificates {
		if leaf := c.present.Load().Leaf; leaf != nil {
			gauge(tlsNotAfter, float64(leaf.NotAfter.Unix()), c.name)
		}
	}
	m.collectKeys(gauge)
	m.collectForesight(gauge)
}

// collectKeys tells when certificates and revocation lists end.
func (m *metrics) collectKeys(gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	if m.d.issuer == nil {
		return
	}
	for _, id := range m.d.issuer.Identities() {
		if len(id.Chain) > 0 {
			if leaf, err := x509.ParseCertificate(id.Chain[0]); err == nil {
				gauge(keyNotAfter, float64(leaf.NotAfter.Unix()), id.Label, string(id.Purpose))
			}
		}
		if len(id.CRL) > 0 {
			if list, err := x509.ParseRevocationList(id.CRL); err == nil {
				gauge(crlNextUpdate, float64(list.NextUpdate.Unix()), id.Label)
			}
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
