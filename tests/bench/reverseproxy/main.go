// Routes by key as a reverse proxy of one's own would: the alternative to a filter in Envoy.
//
// It is what Sidetrack's first sketch described: net/http, a map of rules behind a lock, a pool of connections for each
// target. It has neither retries nor limits nor metrics. scripts/bench measures what a request costs in it.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

type rule struct {
	target  string
	prefix  string
	headers [][2]string
}

// table is the rules by key. Requests read it while an update may replace rules.
type table struct {
	lock  sync.RWMutex
	rules map[string][]rule
}

func (t *table) add(key string, added rule) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.rules[key] = append(t.rules[key], added)
}

// target returns where a request goes, by the first rule of its key that matches.
func (t *table) target(request *http.Request, baseline string) string {
	key := request.Header.Get("X-Route-Key")
	if key == "" {
		return baseline
	}
	t.lock.RLock()
	defer t.lock.RUnlock()
	for _, rule := range t.rules[key] {
		if rule.matches(request) {
			return rule.target
		}
	}
	return baseline
}

func (r *rule) matches(request *http.Request) bool {
	rest, found := strings.CutPrefix(request.URL.Path, r.prefix)
	if !found || (r.prefix != "" && rest != "" && rest[0] != '/') {
		return false
	}
	for _, header := range r.headers {
		if request.Header.Get(header[0]) != header[1] {
			return false
		}
	}
	return true
}

// pools holds a pool of connections for each target.
type pools struct {
	lock       sync.RWMutex
	transports map[string]*http.Transport
}

func (p *pools) of(target string) *http.Transport {
	p.lock.RLock()
	transport := p.transports[target]
	p.lock.RUnlock()
	if transport != nil {
		return transport
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	if transport := p.transports[target]; transport != nil {
		return transport
	}
	transport = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 100,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
	p.transports[target] = transport
	return transport
}

// Headers that are for one connection only (RFC 9110, 7.6.1).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

type proxy struct {
	table    table
	pools    pools
	baseline string
}

func (p *proxy) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	target := p.table.target(request, p.baseline)
	outgoing := request.Clone(request.Context())
	outgoing.URL.Scheme, outgoing.URL.Host, outgoing.RequestURI = "http", target, ""
	for _, name := range hopByHop {
		outgoing.Header.Del(name)
	}
	if request.ContentLength == 0 {
		outgoing.Body = nil
	}
	answer, err := p.pools.of(target).RoundTrip(outgoing)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	for _, name := range hopByHop {
		answer.Header.Del(name)
	}
	for name, values := range answer.Header {
		response.Header()[name] = values
	}
	response.WriteHeader(answer.StatusCode)
	io.Copy(response, answer.Body)
}

// read adds the rules of a file: a line for each, its key, path prefix and headers (`name=value;` each), with tabs between.
func (p *proxy) read(path, target string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		added := rule{target: target, prefix: fields[1]}
		for _, header := range strings.Split(strings.TrimSuffix(fields[2], ";"), ";") {
			if name, value, found := strings.Cut(header, "="); found {
				added.headers = append(added.headers, [2]string{name, value})
			}
		}
		p.table.add(fields[0], added)
	}
	return lines.Err()
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "where it listens")
	baseline := flag.String("baseline", "", "HOST:PORT that requests go to which no rule matches")
	sandbox := flag.String("sandbox", "", "HOST:PORT that requests go to which a rule matches")
	rules := flag.String("rules", "", "the file of the rules")
	flag.Parse()
	p := &proxy{baseline: *baseline}
	p.table.rules = make(map[string][]rule)
	p.pools.transports = make(map[string]*http.Transport)
	if err := p.read(*rules, *sandbox); err != nil {
		log.Fatal(err)
	}
	fmt.Println(runtime.Version())
	log.Fatal(http.ListenAndServe(*listen, p))
}
