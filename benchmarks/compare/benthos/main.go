// Benthos (the open-source engine of Redpanda Connect) with a small Kafka group-consumer input on franz-go:
// one message per batch, offsets committed in order every 5 s once their messages are acknowledged.
package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/Jeffail/checkpoint"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

type tp struct {
	t string
	p int32
}

type input struct {
	brokers []string
	topic   string
	group   string
	limit   int
	session time.Duration

	mu    sync.Mutex
	cl    *kgo.Client
	cps   map[tp]*checkpoint.Capped[*kgo.Record]
	queue chan *kgo.Record
	stop  context.CancelFunc
	ctx   context.Context
}

func (i *input) Connect(ctx context.Context) error {
	i.cps = map[tp]*checkpoint.Capped[*kgo.Record]{}
	i.queue = make(chan *kgo.Record)
	cl, err := kgo.NewClient(kgo.SeedBrokers(i.brokers...), kgo.ConsumeTopics(i.topic), kgo.ConsumerGroup(i.group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(i.session), kgo.HeartbeatInterval(min(3*time.Second, i.session/4)),
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(5*time.Second),
		kgo.OnPartitionsRevoked(func(ctx context.Context, c *kgo.Client, _ map[string][]int32) { c.CommitMarkedOffsets(ctx) }))
	if err != nil {
		return err
	}
	i.cl = cl
	i.ctx, i.stop = context.WithCancel(context.Background())
	go func() {
		defer close(i.queue)
		for {
			fs := cl.PollFetches(i.ctx)
			if i.ctx.Err() != nil || fs.IsClientClosed() {
				return
			}
			for it := fs.RecordIter(); !it.Done(); {
				select {
				case i.queue <- it.Next():
				case <-i.ctx.Done():
					return
				}
			}
		}
	}()
	return nil
}

func (i *input) Read(ctx context.Context) (*service.Message, service.AckFunc, error) {
	var r *kgo.Record
	var ok bool
	select {
	case r, ok = <-i.queue:
		if !ok {
			return nil, nil, service.ErrEndOfInput
		}
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	k := tp{r.Topic, r.Partition}
	i.mu.Lock()
	cp := i.cps[k]
	if cp == nil {
		cp = checkpoint.NewCapped[*kgo.Record](int64(i.limit))
		i.cps[k] = cp
	}
	i.mu.Unlock()
	release, err := cp.Track(ctx, r, 1)
	if err != nil {
		return nil, nil, err
	}
	return service.NewMessage(r.Value), func(_ context.Context, err error) error {
		if err != nil {
			return err
		}
		if high := release(); high != nil && *high != nil {
			i.cl.MarkCommitRecords(*high)
		}
		return nil
	}, nil
}

func (i *input) Close(ctx context.Context) error {
	if i.cl == nil {
		return nil
	}
	i.stop()
	err := i.cl.CommitMarkedOffsets(ctx)
	i.cl.CloseAllowingRebalance()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func main() {
	spec := service.NewConfigSpec().
		Field(service.NewStringField("brokers")).
		Field(service.NewStringField("topic")).
		Field(service.NewStringField("group")).
		Field(service.NewIntField("checkpoint_limit").Default(1024)).
		Field(service.NewIntField("session_timeout_ms").Default(45000))
	err := service.RegisterInput("franz", spec, func(c *service.ParsedConfig, _ *service.Resources) (service.Input, error) {
		b, err := c.FieldString("brokers")
		if err != nil {
			return nil, err
		}
		in := &input{brokers: strings.Split(b, ",")}
		if in.topic, err = c.FieldString("topic"); err != nil {
			return nil, err
		}
		if in.group, err = c.FieldString("group"); err != nil {
			return nil, err
		}
		if in.limit, err = c.FieldInt("checkpoint_limit"); err != nil {
			return nil, err
		}
		session, err := c.FieldInt("session_timeout_ms")
		if err != nil {
			return nil, err
		}
		in.session = time.Duration(session) * time.Millisecond
		return service.AutoRetryNacks(in), nil
	})
	if err != nil {
		panic(err)
	}
	service.RunCLI(context.Background())
}
