//! gRPC without a network: messages that are too large, alone or together.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use common::{eventually, service};
use futures_util::StreamExt;
use futures_util::future::select_all;
use futures_util::stream;
use http_body_util::BodyExt;
use ray_zerocopy_serve::{Limits, Service};
use tokio::task::JoinHandle;
use tower::ServiceExt;

const PART: usize = 64 << 10;

/// Sends a message of `bytes` in parts, of which `parts` arrive, and never its end.
async fn call(service: &Service, method: &str, bytes: u32, parts: usize) -> HeaderMap {
    let head = Bytes::from([&[0][..], &bytes.to_be_bytes()].concat());
    let parts = stream::repeat(Bytes::from(vec![0; PART])).take(parts);
    let message = stream::iter([head]).chain(parts).chain(stream::pending()).map(Ok::<_, Infallible>);
    let request = Request::post(format!("/inference.GRPCInferenceService/{method}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let reply = service.grpc_router().oneshot(request.body(Body::from_stream(message)).unwrap()).await.unwrap();
    let (parts, body) = reply.into_parts();
    // The status of a stream is after its items.
    let trailers = body.collect().await.unwrap().trailers().cloned();
    trailers.unwrap_or(parts.headers)
}

fn error(headers: &HeaderMap) -> (&str, String) {
    let text = headers["grpc-message"].to_str().unwrap().replace("%20", " ");
    (headers["grpc-status"].to_str().unwrap(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_are_refused_by_their_heads() {
    let service = service(Limits::default().request_bytes(10 * PART));
    for (method, bytes) in [("ModelInfer", 200 << 20), ("ModelStreamInfer", 200 << 20), ("ModelMetadata", u32::MAX)] {
        let headers = call(&service, method, bytes, 0).await;
        let (status, message) = error(&headers);
        assert_eq!(status, "8", "{method}: {message}");
        assert_eq!(
            message,
            format!("the request has {bytes} bytes or more, and may have 655360; send less, or raise the limit")
        );
    }
    assert_eq!(service.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_arrive_together_are_counted_together() {
    let service = service(Limits::default().bytes(10 * PART).calls(2));
    let size = 6 * PART as u32;
    let spawn = |bytes, parts| {
        let service = service.clone();
        tokio::spawn(async move { call(&service, "ModelInfer", bytes, parts).await })
    };
    // One of two is refused, and the other one waits for the rest of its message.
    let (refused, _, mut waiting) = select_all([spawn(size, 3), spawn(size, 3)]).await;
    let headers = refused.unwrap();
    let (status, message) = error(&headers);
    assert_eq!(status, "8", "{message}");
    assert_eq!(message, "requests of 393216 bytes are in flight, and the limit is 655360; try again later");

    // Another one waits, too, and there is no room for a third call.
    waiting.push(spawn(4, 0));
    eventually(|| service.in_flight() == 2).await;
    let headers = call(&service, "ModelInfer", 4, 0).await;
    let (status, message) = error(&headers);
    assert_eq!(status, "8", "{message}");
    assert!(message.contains("2 calls are waiting or running, which is the limit"), "{message}");
    // Clients that go away give their places back.
    waiting.iter().for_each(JoinHandle::abort);
    eventually(|| service.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_streams_are_counted_while_they_arrive() {
    let service = service(Limits::default().bytes(10 * PART));
    let size = 6 * PART as u32;
    for method in ["ModelStreamInfer", "ModelMetadata"] {
        let spawn = || {
            let service = service.clone();
            tokio::spawn(async move { call(&service, method, size, 3).await })
        };
        let (refused, _, waiting) = select_all([spawn(), spawn()]).await;
        let headers = refused.unwrap();
        let (status, message) = error(&headers);
        assert_eq!(status, "8", "{message}");
        // Neither the one that waits nor those of the round before count twice.
        assert_eq!(message, "requests of 393216 bytes are in flight, and the limit is 655360; try again later");
        for call in waiting {
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
        }
    }
    assert_eq!(service.in_flight(), 0);
}
