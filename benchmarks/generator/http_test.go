package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// exchangeWith answers one request with these pieces, each in its own packet.
func exchangeWith(t *testing.T, pieces ...string) (answer, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		socket, err := listener.Accept()
		if err != nil {
			return
		}
		defer socket.Close()
		if _, err := socket.Read(make([]byte, 1024)); err != nil {
			return
		}
		for _, piece := range pieces {
			fmt.Fprint(socket, piece)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return exchange(t, options{target: listener.Addr().String()})
}

func exchange(t *testing.T, o options) (answer, error) {
	t.Helper()
	o.path, o.header, o.answerTimeout = "/", "A: b", 5*time.Second
	connect, err := httpConnector(o, [][]byte{[]byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	c, err := connect()
	if err != nil {
		return answer{}, err
	}
	defer c.close()
	return c.exchange(0)
}

func TestServersAreVerifiedByTheAuthority(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "four")
	}))
	defer server.Close()
	o := options{target: server.Listener.Addr().String(), authority: authority(t, server.Certificate().Raw)}
	if got, err := exchange(t, o); err != nil || got.status != answered || string(got.body) != "four" {
		t.Errorf("got %v %q %v", got.status, got.body, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	other, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	o.authority = authority(t, other)
	if got, err := exchange(t, o); err == nil {
		t.Errorf("another authority: expected an error, got %q", got.body)
	}
}

// authority is a file with a certificate in PEM.
func authority(t *testing.T, certificate []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "authority.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAnswers(t *testing.T) {
	cases := map[string]struct {
		pieces []string
		status status
		body   string
	}{
		"whole":           {[]string{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour"}, answered, "four"},
		"cut in the head": {[]string{"HTTP/1.1 200 OK\r\ncontent-le", "ngth: 4\r\n\r", "\nfo", "ur"}, answered, "four"},
		"refused":         {[]string{"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"}, refused, ""},
		"failed":          {[]string{"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno"}, failed, "no"},
		"chunked": {[]string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfo", "ur\r\n",
			"0b\r\n and ten mo\r\n0\r\n\r\n"}, answered, "four and ten mo"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := exchangeWith(t, c.pieces...)
			if err != nil || got.status != c.status || string(got.body) != c.body {
				t.Errorf("got %v %q %v, expected %v %q", got.status, got.body, err, c.status, c.body)
			}
		})
	}
}

func TestCutAnswersAreErrors(t *testing.T) {
	for _, answer := range []string{
		"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfou",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfo",
	} {
		if got, err := exchangeWith(t, answer); err == nil {
			t.Errorf("%q: expected an error, got %q", answer, got.body)
		}
	}
}
