package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const pauseAfterError = 10 * time.Millisecond

// run drives all connections through warm-up and measurement.
func run(o options, connect connect, requests int, answers [][]byte) (result, error) {
	if len(answers) != 1 && len(answers) != requests {
		return result{}, fmt.Errorf("%d answers for %d requests", len(answers), requests)
	}
	began := time.Now()
	w := window{began.Add(o.warmUp), began.Add(o.warmUp + o.duration)}
	var work func(*worker)
	a := newArrivals(o.connections)
	if o.rate > 0 {
		work = func(worker *worker) { worker.follow(a) }
		go a.schedule(o.rate, w, requests)
	} else {
		work = func(worker *worker) { worker.loop(worker.first) }
	}
	workers, wait, err := start(o, connect, requests, answers, w, work)
	if err != nil {
		return result{}, err
	}
	time.Sleep(time.Until(w.from))
	before, err := readUsage(o.watch)
	if err != nil {
		return result{}, err
	}
	time.Sleep(time.Until(w.until))
	after, err := readUsage(o.watch)
	if err != nil {
		return result{}, err
	}
	wait()
	return summarize(workers, o.duration, a.unsent, after.since(before)), nil
}

func start(o options, connect connect, requests int, answers [][]byte, w window, work func(*worker)) (
	[]*worker, func(), error) {
	workers := make([]*worker, o.connections)
	var group sync.WaitGroup
	for i := range workers {
		c, err := connect()
		if err != nil {
			return nil, nil, err
		}
		workers[i] = &worker{connect: connect, connection: c, requests: requests, answers: answers, window: w,
			first: i * requests / o.connections}
		group.Add(1)
		go func() {
			defer group.Done()
			work(workers[i])
			workers[i].connection.close()
		}()
	}
	return workers, group.Wait, nil
}

type window struct{ from, until time.Time }

func (w window) contains(t time.Time) bool { return !t.Before(w.from) && t.Before(w.until) }

// worker owns one connection and what was measured on it.
type worker struct {
	connect    connect
	connection connection
	requests   int
	answers    [][]byte
	window     window
	first      int
	measured   measured
}

// loop is a closed loop: the next request is sent when the answer is there.
func (w *worker) loop(request int) {
	for began := time.Now(); began.Before(w.window.until); began = time.Now() {
		w.ask(request, began)
		request = (request + 1) % w.requests
	}
}

// follow takes requests as they arrive; their time counts from when they should have started.
func (w *worker) follow(a *arrivals) {
	for next := range a.queue {
		w.ask(next.request, next.due)
		a.free <- struct{}{}
	}
}

func (w *worker) ask(request int, began time.Time) {
	got, err := w.connection.exchange(request)
	done := time.Now()
	if err != nil {
		got = answer{failed, []byte(err.Error())}
		w.reconnect()
	}
	if w.window.contains(began) {
		w.measured.add(got, w.answers[request%len(w.answers)], done.Sub(began))
	}
}

func (w *worker) reconnect() {
	w.connection.close()
	time.Sleep(pauseAfterError)
	if c, err := w.connect(); err == nil {
		w.connection = c
	}
}

func (m *measured) add(got answer, expected []byte, took time.Duration) {
	switch {
	case got.status == answered && bytes.Equal(got.body, expected):
		m.right = append(m.right, took)
	case got.status == answered:
		m.wrong++
		m.note("wrong answer: %.300s - expected: %.300s", got.body, expected)
	case got.status == refused:
		m.refused = append(m.refused, took)
	default:
		m.failed++
		m.note("%.300s", got.body)
	}
}

// arrivals are the requests of an open loop; `free` holds a token for each idle connection.
type arrivals struct {
	queue  chan arrival
	free   chan struct{}
	unsent int64
}

type arrival struct {
	request int
	due     time.Time
}

func newArrivals(connections int) *arrivals {
	a := &arrivals{queue: make(chan arrival, connections), free: make(chan struct{}, connections)}
	for range connections {
		a.free <- struct{}{}
	}
	return a
}

// schedule lets requests arrive at random (exponential gaps) until the window ends.
// What arrives while every connection is busy is counted and never sent. The generator does not sleep until each
// arrival, because waking would slow a server whose core is a sibling of the generator's.
func (a *arrivals) schedule(rate float64, w window, requests int) {
	defer close(a.queue)
	random := rand.New(rand.NewPCG(1, 2))
	over := time.After(time.Until(w.until))
	busyUntil := time.Time{}
	for i, due := 0, time.Now(); ; i++ {
		due = due.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		if !due.Before(w.until) {
			return
		}
		if !due.Before(busyUntil) {
			time.Sleep(time.Until(due))
			select {
			case <-a.free:
				a.queue <- arrival{i % requests, due}
				continue
			default:
				busyUntil = a.nextFree(over)
			}
		}
		if w.contains(due) {
			a.unsent++
		}
	}
}

// nextFree waits until a connection is free, or until the run is over, and returns when that was.
func (a *arrivals) nextFree(over <-chan time.Time) time.Time {
	select {
	case token := <-a.free:
		a.free <- token
	case <-over:
	}
	return time.Now()
}
