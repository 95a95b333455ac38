// A device that speaks JSON and no gRPC: it registers, holds its stream, and answers every invocation of echo with its
// input. It exists to show that docs/node-json.md is all that one needs to write a device.
//
// It keeps no journal: what it was told twice it would do twice. A real device must remember.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// No line of a gateway is longer.
const maxLine = 256 * 1024

// What a gateway says. Fields that are not known here are passed over, as the documentation asks.
type gatewayEvent struct {
	Welcome *struct {
		HeartbeatIntervalMs int64  `json:"heartbeatIntervalMs"`
		Gateway             string `json:"gateway"`
	} `json:"welcome"`
	Dispatch *struct {
		UID        string `json:"uid"`
		Name       string `json:"name"`
		Capability string `json:"capability"`
		// Base64 in JSON; encoding/json takes it apart.
		Input []byte `json:"input"`
	} `json:"dispatch"`
	ResultAck *struct {
		UID string `json:"uid"`
	} `json:"resultAck"`
	Drain *struct{} `json:"drain"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

type lines struct {
	sync.Mutex
	to io.Writer
}

func (l *lines) say(event map[string]any) error {
	line, err := json.Marshal(event)
	if err != nil {
		return err
	}
	l.Lock()
	defer l.Unlock()
	_, err = l.to.Write(append(line, '\n'))
	return err
}

func main() {
	gateway := flag.String("gateway", "", "HOST:PORT of the gateway")
	cert := flag.String("cert", "", "file: the device's certificate and chain, PEM")
	key := flag.String("key", "", "file: the device's key, PEM")
	ca := flag.String("ca", "", "file: the certificates that gateways are checked with, PEM")
	flag.Parse()
	if err := run(*gateway, *cert, *key, *ca); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(gateway, cert, key, ca string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	bundle, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("no certificate in " + ca)
	}
	client := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{pair},
			RootCAs:      roots,
			// Whatever address it is reached at.
			ServerName: "gateway.fairlead.internal",
			MinVersion: tls.VersionTLS13,
		},
	}}
	base := "https://" + gateway

	registration, err := register(client, base)
	if err != nil {
		return err
	}
	reader, writer := io.Pipe()
	request, err := http.NewRequest(http.MethodPost, base+"/node/v1/event-stream", reader)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	out := &lines{to: writer}
	go func() {
		// The stream's first line. An error shows at the other end of the pipe, too.
		_ = out.say(map[string]any{"hello": map[string]any{"registration": registration}})
	}()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return refused(response)
	}
	return listen(response.Body, out)
}

func register(client *http.Client, base string) (string, error) {
	body, err := json.Marshal(map[string]any{
		"platform": map[string]any{"os": "linux", "arch": "amd64", "agentVersion": "json/1", "hostname": "json"},
		"capabilities": []any{
			map[string]any{"name": "echo", "execution": "EXECUTION_AUTOMATIC", "availability": "AVAILABILITY_AVAILABLE"},
		},
	})
	if err != nil {
		return "", err
	}
	response, err := client.Post(base+"/node/v1/register", "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", refused(response)
	}
	var answer struct {
		Registration string `json:"registration"`
		Namespace    string `json:"namespace"`
		Device       string `json:"device"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxLine)).Decode(&answer); err != nil {
		return "", err
	}
	fmt.Printf("registered %s/%s\n", answer.Namespace, answer.Device)
	return answer.Registration, nil
}

func refused(response *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxLine))
	return fmt.Errorf("refused: %s: %s", response.Status, bytes.TrimSpace(body))
}

func listen(from io.Reader, out *lines) error {
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		var event gatewayEvent
		if err := json.Unmarshal(scanner.Bytes(), &event); err != nil {
			return err
		}
		switch {
		case event.Welcome != nil:
			fmt.Printf("welcomed by %s\n", event.Welcome.Gateway)
			go beat(out, time.Duration(event.Welcome.HeartbeatIntervalMs)*time.Millisecond)
		case event.Dispatch != nil:
			if err := answer(out, event); err != nil {
				return err
			}
		case event.ResultAck != nil:
			fmt.Printf("acknowledged %s\n", event.ResultAck.UID)
		case event.Drain != nil:
			fmt.Println("told to leave")
			return nil
		case event.Error != nil:
			return fmt.Errorf("ended: %s: %s", event.Error.Code, event.Error.Message)
		}
	}
	return scanner.Err()
}

func beat(out *lines, every time.Duration) {
	for {
		time.Sleep(every)
		if out.say(map[string]any{"heartbeat": map[string]any{}}) != nil {
			return
		}
	}
}

func answer(out *lines, event gatewayEvent) error {
	dispatch := event.Dispatch
	result := map[string]any{"uid": dispatch.UID, "name": dispatch.Name}
	if dispatch.Capability == "echo" {
		output := dispatch.Input
		if len(output) == 0 {
			output = []byte("null")
		}
		digest := sha256.Sum256(output)
		result["outcome"] = "OUTCOME_SUCCEEDED"
		result["output"] = output
		result["outputSha256"] = digest[:]
	} else {
		result["outcome"] = "OUTCOME_FAILED"
		result["failure"] = map[string]any{"code": "FAILURE_CODE_NOT_DECLARED", "message": "this device has echo alone"}
	}
	return out.say(map[string]any{"result": result})
}
