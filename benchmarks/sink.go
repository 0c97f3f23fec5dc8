// A receiver that is faster than any sender measured here.
// usage: sink PORT [DELAY_MS [HOSTS]], on 127.0.0.1 to 127.0.0.HOSTS; GET /stats, POST /reset; every other path is a delivery and answers 204.
// An event may carry "at":<unix ns> as its first field: the time from there to here is kept, of a batch for its first.
// GET /events: how many of these have come, in whatever requests.
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

var (
	mu        sync.Mutex
	ids       = map[string]struct{}{}
	total     int
	events    int
	open      int
	mostOpen  int
	latencies []float64
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
	answer := map[string]any{"total": total, "distinct": len(ids), "most_open": mostOpen}
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
}

func main() {
	delay := time.Duration(0)
	if len(os.Args) > 2 {
		milliseconds, err := strconv.Atoi(os.Args[2])
		if err != nil {
			log.Fatal(err)
		}
		delay = time.Duration(milliseconds) * time.Millisecond
	}
	http.HandleFunc("GET /stats", stats)
	http.HandleFunc("GET /count", count)
	http.HandleFunc("GET /events", countEvents)
	http.HandleFunc("POST /reset", reset)
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		buffer := buffers.Get().(*bytes.Buffer)
		buffer.Reset()
		_, err := buffer.ReadFrom(r.Body)
		now := time.Now()
		latency := -1.0
		carried := bytes.Count(buffer.Bytes(), marker)
		if rest, found := bytes.CutPrefix(bytes.TrimPrefix(buffer.Bytes(), []byte("[")), marker); found {
			if end := bytes.IndexByte(rest, ','); end > 0 {
				if at, err := strconv.ParseInt(string(rest[:end]), 10, 64); err == nil {
					latency = float64(now.UnixNano()-at) / 1e6
				}
			}
		}
		buffers.Put(buffer)
		if err != nil {
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
		mu.Unlock()
		if delay > 0 {
			time.Sleep(delay)
		}
		mu.Lock()
		open--
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	})
	hosts := 1
	if len(os.Args) > 3 {
		given, err := strconv.Atoi(os.Args[3])
		if err != nil {
			log.Fatal(err)
		}
		hosts = given
	}
	for host := 2; host <= hosts; host++ {
		go func() { log.Fatal(http.ListenAndServe("127.0.0."+strconv.Itoa(host)+":"+os.Args[1], nil)) }()
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
