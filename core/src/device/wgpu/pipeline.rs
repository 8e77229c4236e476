//! Kernels to pipelines, recordings to bind groups.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::timer::Timer;
use super::{Fault, WgpuBuffer, WgpuDevice};
use crate::device::{Buffer, Entry, Prepared, Purpose};
use crate::kernels::{Access, Variant};
use crate::recording::{Dispatch, PackedArgs, Recording, resolve};
use crate::{Error, Result};

/// A compiled variant of a kernel and the layout of its bindings.
pub(super) struct Compiled {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    _entry: Entry,
}

/// A recording with everything bound.
pub(super) struct WgpuPrepared {
    steps: Vec<Step>,
    /// Which steps are of which segment.
    segments: Vec<Range<usize>>,
    /// What is bound: a buffer is destroyed with its last clone.
    _buffers: Vec<Buffer>,
}

struct Step {
    dispatch: Rc<Dispatch>,
    compiled: Rc<Compiled>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

impl WgpuPrepared {
    pub(super) fn encode(&self, segment: usize, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for step in &self.steps[self.segments[segment].clone()] {
            step.encode(&mut pass);
        }
    }

    pub(super) fn encode_timed(
        &self,
        segment: usize,
        encoder: &mut wgpu::CommandEncoder,
        device: &wgpu::Device,
        timer: &mut Timer,
    ) {
        for step in &self.steps[self.segments[segment].clone()] {
            step.encode(
                &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(step.dispatch.kernel.name),
                    timestamp_writes: Some(timer.next(device, &step.dispatch)),
                }),
            );
        }
    }
}

impl Step {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.compiled.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

impl WgpuDevice {
    pub(super) async fn bind(&self, recording: &Recording) -> Result<Prepared> {
        self.check()?;
        // All pipelines first: browsers compile them in parallel until the first is waited for.
        let dispatches: Vec<&Dispatch> = recording.dispatches().collect();
        let mut chosen = Vec::with_capacity(dispatches.len());
        for dispatch in &dispatches {
            let variant = dispatch.choose(&self.limits).map_err(|e| self.error(e))?;
            let compiled = self.compile(dispatch, &variant).await?;
            chosen.push((variant, compiled));
        }
        let plan = recording.plan_scratch();
        let mut pool = Vec::with_capacity(plan.buffers.len());
        for bytes in &plan.buffers {
            pool.push(
                self.allocate(*bytes, Purpose::Activations, "scratch")
                    .await?,
            );
        }
        let live = self.live();
        let align = live.device.limits().min_uniform_buffer_offset_alignment as usize;
        let PackedArgs { bytes, places } = PackedArgs::new(&dispatches, align);
        let args = self.uniforms(&bytes);

        let scope = live.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut steps = Vec::with_capacity(chosen.len());
        let mut bound: HashMap<usize, Buffer> = HashMap::new();
        for (i, (variant, compiled)) in chosen.into_iter().enumerate() {
            let dispatch = dispatches[i];
            let mut entries = Vec::with_capacity(dispatch.bindings.len() + 1);
            for (number, tensor) in dispatch.bindings.iter().enumerate() {
                let Some(tensor) = tensor else { continue };
                let buffer = resolve(tensor, &plan, &pool);
                bound
                    .entry(buffer.address())
                    .or_insert_with(|| buffer.clone());
                let buffer = self.buffer(buffer)?;
                entries.push(wgpu::BindGroupEntry {
                    binding: number as u32,
                    resource: buffer.as_entire_binding(),
                });
            }
            if let (Some(args), Some((offset, size))) = (&args, places[i]) {
                let args = self.buffer(args)?;
                entries.push(wgpu::BindGroupEntry {
                    binding: dispatch.bindings.len() as u32,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: args,
                        offset,
                        size: wgpu::BufferSize::new(size),
                    }),
                });
            }
            let bind_group = live.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.kernel.name),
                layout: &compiled.layout,
                entries: &entries,
            });
            steps.push(Step {
                dispatch: Rc::new(dispatch.clone()),
                compiled,
                bind_group,
                workgroups: variant.workgroups,
            });
        }
        if let Some(e) = scope.pop().await {
            return Err(self.caught(self.error(e.to_string())).await);
        }
        let scratch = plan.slot.iter().map(|b| pool[*b].clone()).collect();
        let mut end = 0;
        let segment = |segment: Vec<&Dispatch>| {
            let start = end;
            end += segment.len();
            start..end
        };
        let segments: Vec<_> = recording.segments().into_iter().map(segment).collect();
        let count = segments.len();
        Ok(Prepared::new(
            WgpuPrepared {
                steps,
                segments,
                _buffers: bound.into_values().chain(args).collect(),
            },
            scratch,
            count,
        ))
    }

    fn uniforms(&self, bytes: &[u8]) -> Option<Buffer> {
        if bytes.is_empty() {
            return None;
        }
        let live = self.live();
        let buffer = live.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("args"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        live.queue.write_buffer(&buffer, 0, bytes);
        let (buffer, bytes) = (WgpuBuffer(buffer), bytes.len() as u64);
        Some((self.ledger).buffer(buffer, bytes, bytes, Purpose::Activations))
    }

    async fn compile(&self, dispatch: &Dispatch, variant: &Variant) -> Result<Rc<Compiled>> {
        let (kernel, params) = (dispatch.kernel, &dispatch.params);
        let key = kernel.pipeline_key(params, variant);
        let live = self.live();
        if let Some(found) = live.pipelines.borrow().get(&key) {
            return Ok(Rc::clone(found));
        }
        let web = cfg!(target_arch = "wasm32");
        let text = kernel.wgsl(params, variant, web);
        let text = text.map_err(|e| self.error(e))?;
        let scope = live.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = live
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(kernel.name),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            });
        let layout = self.layout(dispatch);
        let pipeline_layout = live
            .device
            .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
        let pipeline = live
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: Default::default(),
                cache: None,
            });
        if let Some(e) = scope.pop().await {
            let error = match Fault::from(e) {
                Fault::OutOfMemory => self.out_of_memory(0, kernel.name),
                Fault::Lost(e) | Fault::Other(e) => Error::Device {
                    device: self.info.name.clone(),
                    reason: format!("kernel {key} does not compile: {e}"),
                },
            };
            return Err(self.caught(error).await);
        }
        let compiled = Rc::new(Compiled {
            pipeline,
            layout,
            _entry: self.ledger.pipeline(),
        });
        let mut pipelines = live.pipelines.borrow_mut();
        pipelines.insert(key, Rc::clone(&compiled));
        Ok(compiled)
    }

    fn layout(&self, dispatch: &Dispatch) -> wgpu::BindGroupLayout {
        let buffer = |binding: usize, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty,
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let kernel = dispatch.kernel;
        let mut entries = Vec::with_capacity(kernel.bindings.len() + 1);
        for (i, (binding, tensor)) in kernel.bindings.iter().zip(&dispatch.bindings).enumerate() {
            if tensor.is_none() {
                continue;
            }
            let ty = match binding.access {
                Access::Read | Access::Weight => {
                    wgpu::BufferBindingType::Storage { read_only: true }
                }
                Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
                Access::Uniform => wgpu::BufferBindingType::Uniform,
            };
            entries.push(buffer(i, ty));
        }
        if !kernel.uniforms.is_empty() {
            entries.push(buffer(
                kernel.bindings.len(),
                wgpu::BufferBindingType::Uniform,
            ));
        }
        let descriptor = wgpu::BindGroupLayoutDescriptor {
            label: Some(kernel.name),
            entries: &entries,
        };
        self.live().device.create_bind_group_layout(&descriptor)
    }
}
