// A receiver that is faster than any sender measured here.
// usage: sink [flags]; GET /stats, /count and /events, POST /reset; every other path is a delivery and answers 204.
// An event may have "at":<unix ns> as its first field: the latency since then is recorded, of a batch for its first event.
// GET /events: the number of such events received, in single requests or batches.
// With -secret the first 200 signatures are checked: that of Standard Webhooks, or else the hexadecimal one of the body.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	signatures = 200 // to check
	shape      = 1.1 // of the Pareto distribution of a heavy tail: p50 19 ms, p99 660 ms with a minimum of 10 ms
	longest    = 5 * time.Second
)

var (
	port        = flag.Int("port", 0, "of 127.0.0.1")
	hosts       = flag.Int("hosts", 1, "listen on 127.0.0.1 to 127.0.0.HOSTS")
	delay       = flag.Duration("delay", 0, "before each answer")
	tail        = flag.Bool("tail", false, "the delay is the least, and has a heavy tail")
	tlsPort     = flag.Int("tls-port", 0, "the same by https, on the same addresses")
	http2       = flag.Bool("http2", false, "https offers HTTP/2 too")
	certificate = flag.String("certificate", "", "PEM file")
	key         = flag.String("key", "", "PEM file")
	secret      = flag.String("secret", "", "checks signatures")
)

var (
	mu        sync.Mutex
	ids       = map[string]struct{}{}
	total     int
	events    int
	open      int
	mostOpen  int
	checked   int
	forged    int
	latencies []float64
	random    = rand.New(rand.NewPCG(1, 2))
	marker    = []byte(`{"at":`)
	buffers   = sync.Pool{New: func() any { return new(bytes.Buffer) }}
)

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}

func stats(w http.ResponseWriter, _ *http.Request) {
	mu.Lock()
	sorted := slices.Clone(latencies)
	answer := map[string]any{
		"total": total, "distinct": len(ids), "most_open": mostOpen, "checked": checked, "forged": forged,
	}
	mu.Unlock()
	slices.Sort(sorted)
	for name, q := range map[string]float64{"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1} {
		answer[name] = quantile(sorted, q)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func count(w http.ResponseWriter, _ *http.Request) {
	mu.Lock()
	defer mu.Unlock()
	_, _ = io.WriteString(w, strconv.Itoa(len(ids)))
}

func countEvents(w http.ResponseWriter, _ *http.Request) {
	mu.Lock()
	defer mu.Unlock()
	_, _ = io.WriteString(w, strconv.Itoa(events))
}

func reset(http.ResponseWriter, *http.Request) {
	mu.Lock()
	defer mu.Unlock()
	ids, total, events, mostOpen, latencies = map[string]struct{}{}, 0, 0, 0, nil
	checked, forged = 0, 0
}

func signed(header http.Header, body []byte) bool {
	digest := func(parts ...[]byte) []byte {
		var mac hash.Hash = hmac.New(sha256.New, []byte(*secret))
		for _, part := range parts {
			mac.Write(part)
		}
		return mac.Sum(nil)
	}
	if standard := header.Get("webhook-signature"); standard != "" {
		start := header.Get("webhook-id") + "." + header.Get("webhook-timestamp") + "."
		return strings.Contains(standard, "v1,"+base64.StdEncoding.EncodeToString(digest([]byte(start), body)))
	}
	return header.Get("x-webhook-signature") == hex.EncodeToString(digest(body))
}

// The mutex is held: the random numbers are the same in each run, in the order of arrival.
func nextDelay() time.Duration {
	if !*tail {
		return *delay
	}
	return min(longest, time.Duration(float64(*delay)/math.Pow(1-random.Float64(), 1/shape)))
}

func receive(w http.ResponseWriter, r *http.Request) {
	buffer := buffers.Get().(*bytes.Buffer)
	buffer.Reset()
	_, err := buffer.ReadFrom(r.Body)
	now := time.Now()
	latency := -1.0
	body := buffer.Bytes()
	carried := bytes.Count(body, marker)
	if rest, found := bytes.CutPrefix(bytes.TrimPrefix(body, []byte("[")), marker); found {
		if end := bytes.IndexByte(rest, ','); end > 0 {
			if at, err := strconv.ParseInt(string(rest[:end]), 10, 64); err == nil {
				latency = float64(now.UnixNano()-at) / 1e6
			}
		}
	}
	if err != nil {
		buffers.Put(buffer)
		return
	}
	mu.Lock()
	total++
	events += carried
	open++
	mostOpen = max(mostOpen, open)
	ids[r.Host+r.URL.Path+r.Header.Get("webhook-id")] = struct{}{}
	if latency >= 0 {
		latencies = append(latencies, latency)
	}
	if *secret != "" && checked < signatures {
		checked++
		if !signed(r.Header, body) {
			forged++
		}
	}
	wait := nextDelay()
	mu.Unlock()
	buffers.Put(buffer)
	if wait > 0 {
		time.Sleep(wait)
	}
	mu.Lock()
	open--
	mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	flag.Parse()
	http.HandleFunc("GET /stats", stats)
	http.HandleFunc("GET /count", count)
	http.HandleFunc("GET /events", countEvents)
	http.HandleFunc("POST /reset", reset)
	http.HandleFunc("/", receive)
	for host := 1; *tlsPort != 0 && host <= *hosts; host++ {
		server := http.Server{Addr: fmt.Sprintf("127.0.0.%d:%d", host, *tlsPort)}
		if !*http2 {
			server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		}
		go func() { log.Fatal(server.ListenAndServeTLS(*certificate, *key)) }()
	}
	for host := 2; host <= *hosts; host++ {
		go func() { log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.%d:%d", host, *port), nil)) }()
	}
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), nil))
}
