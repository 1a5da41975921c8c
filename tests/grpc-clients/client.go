// The same as client.py, with the gRPC library for Go.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"
	"google.golang.org/grpc/xds/csds"

	csdspb "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
)

const senders = 8

// statusNames are what other libraries call a status.
var statusNames = map[codes.Code]string{
	codes.Unavailable:      "UNAVAILABLE",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
}

type call struct {
	Target   string      `json:"target"`
	Path     string      `json:"path"`
	Metadata [][2]string `json:"metadata"`
	Count    int         `json:"count"`
	Timeout  float64     `json:"timeout"`
}

type outcome [4]any

// raw passes bytes on as they are.
type raw struct{}

func (raw) Marshal(message any) ([]byte, error)       { return *message.(*[]byte), nil }
func (raw) Unmarshal(bytes []byte, message any) error { *message.(*[]byte) = bytes; return nil }
func (raw) Name() string                              { return "" }

var (
	lock     sync.Mutex
	channels = map[string]*grpc.ClientConn{}
)

func channel(target string) (*grpc.ClientConn, error) {
	lock.Lock()
	defer lock.Unlock()
	if conn, known := channels[target]; known {
		return conn, nil
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		channels[target] = conn
	}
	return conn, err
}

func (c call) do() string {
	conn, err := channel(c.Target)
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Timeout*float64(time.Second)))
	defer cancel()
	for _, pair := range c.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, pair[0], pair[1])
	}
	request, answer, header := []byte("hello"), []byte{}, metadata.MD{}
	err = conn.Invoke(ctx, c.Path, &request, &answer, grpc.Header(&header), grpc.ForceCodec(raw{}))
	if err != nil {
		code := status.Code(err)
		name, known := statusNames[code]
		if !known {
			name = code.String()
		}
		return fmt.Sprintf("%s: %s", name, status.Convert(err).Message())
	}
	if who := header.Get("x-served-by"); len(who) > 0 {
		return who[0]
	}
	return "nobody"
}

func calls(wanted []call) []map[string]int {
	counts := []map[string]int{}
	for _, each := range wanted {
		count := map[string]int{}
		for i := 0; i < each.Count; i++ {
			count[each.do()]++
		}
		counts = append(counts, count)
	}
	return counts
}

type traffic struct {
	stopping chan struct{}
	senders  sync.WaitGroup
	lock     sync.Mutex
	outcomes []outcome
}

func now() float64 { return float64(time.Now().UnixNano()) / 1e9 }

func begin(rate float64, wanted []call) *traffic {
	t := &traffic{stopping: make(chan struct{}), outcomes: []outcome{}}
	pause := time.Duration(float64(senders) / rate * float64(time.Second))
	for sender := 0; sender < senders; sender++ {
		t.senders.Add(1)
		go func() {
			defer t.senders.Done()
			due := time.Now().Add(pause * time.Duration(sender) / senders)
			for turn := sender; ; turn++ {
				select {
				case <-t.stopping:
					return
				case <-time.After(time.Until(due)):
				}
				due = due.Add(pause)
				sent := now()
				who := wanted[turn%len(wanted)].do()
				t.lock.Lock()
				t.outcomes = append(t.outcomes, outcome{turn % len(wanted), sent, now(), who})
				t.lock.Unlock()
			}
		}()
	}
	return t
}

func (t *traffic) stop() []outcome {
	close(t.stopping)
	t.senders.Wait()
	return t.outcomes
}

func resources(server *csds.ClientStatusDiscoveryServer) ([][4]any, error) {
	answer, err := server.FetchClientStatus(context.Background(), &csdspb.ClientStatusRequest{})
	if err != nil {
		return nil, err
	}
	found := [][4]any{}
	for _, config := range answer.GetConfig() {
		for _, resource := range config.GetGenericXdsConfigs() {
			found = append(found, [4]any{
				resource.GetTypeUrl(), resource.GetName(), int(resource.GetClientStatus()),
				resource.GetErrorState().GetDetails(),
			})
		}
	}
	return found, nil
}

func answer(w http.ResponseWriter, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(body)
}

// asked answers 400 to what it can't read.
func asked(w http.ResponseWriter, r *http.Request, wanted any) bool {
	err := json.NewDecoder(r.Body).Decode(wanted)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func main() {
	status, err := csds.NewClientStatusDiscoveryServer()
	if err != nil {
		log.Fatal(err)
	}
	var running *traffic
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { answer(w, struct{}{}) })
	http.HandleFunc("GET /csds", func(w http.ResponseWriter, _ *http.Request) {
		found, err := resources(status)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, found)
	})
	http.HandleFunc("POST /calls", func(w http.ResponseWriter, r *http.Request) {
		var wanted []call
		if asked(w, r, &wanted) {
			answer(w, calls(wanted))
		}
	})
	http.HandleFunc("POST /traffic", func(w http.ResponseWriter, r *http.Request) {
		var wanted struct {
			Rate  float64 `json:"rate"`
			Calls []call  `json:"calls"`
		}
		if asked(w, r, &wanted) {
			running = begin(wanted.Rate, wanted.Calls)
			answer(w, struct{}{})
		}
	})
	http.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) { answer(w, running.stop()) })
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
