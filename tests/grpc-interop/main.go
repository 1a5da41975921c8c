// The interop server of gRPC for Go, on loopback only: the one that comes with it listens everywhere.
//
//	server PORT
package main

import (
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(orca.CallMetricsServerOption(nil))
	options := interop.NewTestServerOptions{MetricsRecorder: orca.NewServerMetricsRecorder()}
	grpc_testing.RegisterTestServiceServer(server, interop.NewTestServer(options))
	log.Fatal(server.Serve(listener))
}
