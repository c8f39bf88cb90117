//! The calls of the protocol.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::admit::Admitted;
use super::protocol::grpc_inference_service_server::GrpcInferenceService;
use super::protocol::model_metadata_response::TensorMetadata;
use super::protocol::repository_index_response::ModelIndex;
use super::protocol::*;
use super::{infer, status};
use crate::error::ServeError;
use crate::repository::{ModelState, TensorPort};
use crate::rest::{EXTENSIONS, NAME, load_in_background, no_shared_memory, refuse_parameters, unload_in_background};
use crate::service::Service;

/// Calls of a stream that run at the same time.
const AT_ONCE: usize = 16;

/// The calls on a service.
pub(super) struct Calls(pub(super) Service);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Calls {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.is_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        Ok(Response::new(ModelReadyResponse { ready: self.0.models().is_ready(&name, &version) }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answer<ServerMetadataResponse> {
        let (name, version) = (NAME.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let extensions = EXTENSIONS.iter().map(|&extension| extension.to_owned()).collect();
        Ok(Response::new(ServerMetadataResponse { name, version, extensions }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Answer<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let (info, version) = self.0.models().info(&name, &version)?;
        let port = |port: &TensorPort| TensorMetadata {
            name: port.name.clone(),
            datatype: port.datatype.clone(),
            shape: port.shape.clone(),
        };
        Ok(Response::new(ModelMetadataResponse {
            name,
            versions: vec![version.to_string()],
            platform: info.platform.to_owned(),
            inputs: info.inputs.iter().map(port).collect(),
            outputs: info.outputs.iter().map(port).collect(),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        let timeout = status::timeout(request.metadata())?;
        let _admitted = request.extensions().get::<Admitted>().cloned();
        Ok(Response::new(infer::run(&self.0, request.into_inner(), timeout).await?))
    }

    type ModelStreamInferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    /// The responses have the order of the requests. An error of one does not end the stream.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let service = self.0.clone();
        let responses = request.into_inner().map(move |message| {
            let service = service.clone();
            async move {
                let request = message?;
                let id = request.id.clone();
                Ok(match infer::run_of_stream(&service, request).await {
                    Ok(response) => {
                        let (error_message, infer_response) = (String::new(), Some(response));
                        ModelStreamInferResponse { error_message, infer_response }
                    }
                    Err(error) => {
                        let infer_response = Some(ModelInferResponse { id, ..ModelInferResponse::default() });
                        ModelStreamInferResponse { error_message: error.to_string(), infer_response }
                    }
                })
            }
        });
        Ok(Response::new(Box::pin(responses.buffered(AT_ONCE))))
    }

    async fn repository_index(&self, request: Request<RepositoryIndexRequest>) -> Answer<RepositoryIndexResponse> {
        let is_ready = request.into_inner().ready;
        let models = self.0.models().index().into_iter();
        let models = models.filter(|entry| !is_ready || entry.state == ModelState::Ready).map(|entry| ModelIndex {
            name: entry.name,
            version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
            state: entry.state.name().to_owned(),
            reason: entry.reason,
        });
        Ok(Response::new(RepositoryIndexResponse { models: models.collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        let RepositoryModelLoadRequest { model_name, parameters, .. } = request.into_inner();
        refuse_parameters(parameters.keys().map(String::as_str))?;
        load_in_background(self.0.models().clone(), model_name).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        unload_in_background(self.0.models().clone(), request.into_inner().model_name).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answer<SystemSharedMemoryStatusResponse> {
        Err(refused())
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answer<SystemSharedMemoryRegisterResponse> {
        Err(refused())
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<SystemSharedMemoryUnregisterResponse> {
        Err(refused())
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answer<CudaSharedMemoryStatusResponse> {
        Err(refused())
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answer<CudaSharedMemoryRegisterResponse> {
        Err(refused())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<CudaSharedMemoryUnregisterResponse> {
        Err(refused())
    }
}

fn refused() -> Status {
    let error: ServeError = no_shared_memory();
    error.into()
}
