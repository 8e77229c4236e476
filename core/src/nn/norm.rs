//! Normalisation layers.

use crate::kernels::{norm, norm_backward, norm_backward_weight};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::Loader;
use crate::{DType, Error, Result};

/// RMSNorm, `x / sqrt(mean(x^2) + eps) * weight` (arXiv:1910.07467).
pub struct RmsNorm {
    weight: Option<Tensor>,
    eps: f32,
}

impl RmsNorm {
    /// A layer of this weight, `(C,)`; without one it is all ones.
    pub fn new(weight: Option<Tensor>, eps: f32) -> Self {
        RmsNorm { weight, eps }
    }

    /// Loads `{name}.weight`, `(C,)`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::vector`].
    pub async fn load(loader: &mut Loader<'_>, name: &str, len: usize, eps: f32) -> Result<Self> {
        let weight = loader.vector(&format!("{name}.weight"), len).await?;
        Ok(RmsNorm::new(Some(weight), eps))
    }

    /// Loads `{name}.weight`, `(C,)`, to whose elements `offset` is added before they are multiplied by `scale`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::vector`].
    pub async fn load_mapped(
        loader: &mut Loader<'_>,
        name: &str,
        len: usize,
        eps: f32,
        offset: f32,
        scale: f32,
    ) -> Result<Self> {
        let name = format!("{name}.weight");
        let map = |w: f32| (w + offset) * scale;
        let weight = loader.vector_with(&name, len, 0..len, map).await?;
        Ok(RmsNorm::new(Some(weight), eps))
    }
}

/// LayerNorm, `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias` (arXiv:1607.06450); PyTorch's eps
/// is 1e-5.
pub struct LayerNorm {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    eps: f32,
}

impl LayerNorm {
    /// A layer of this weight and bias, `(C,)` each; without them they are ones and zeros.
    pub fn new(weight: Option<Tensor>, bias: Option<Tensor>, eps: f32) -> Self {
        LayerNorm { weight, bias, eps }
    }

    /// Loads `{name}.weight` and, if there is one, `{name}.bias`, `(C,)`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::vector`].
    pub async fn load(loader: &mut Loader<'_>, name: &str, len: usize, eps: f32) -> Result<Self> {
        LayerNorm::load_scaled(loader, name, len, eps, 1.0).await
    }

    /// The same, what the norm gives multiplied by `scale`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::vector`].
    pub async fn load_scaled(
        loader: &mut Loader<'_>,
        name: &str,
        len: usize,
        eps: f32,
        scale: f32,
    ) -> Result<Self> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let weight = loader
            .vector_with(&weight, len, 0..len, |w| w * scale)
            .await?;
        let bias = match loader.files().has(&bias) {
            true => Some(
                loader
                    .vector_with(&bias, len, 0..len, |b| b * scale)
                    .await?,
            ),
            false => None,
        };
        Ok(LayerNorm::new(Some(weight), bias, eps))
    }
}

/// A norm of rows, of either kind.
pub enum RowNorm {
    /// By the root of the mean square.
    Rms(RmsNorm),
    /// By mean and variance.
    Layer(LayerNorm),
}

/// GroupNorm: LayerNorm over each of `groups` equal groups of channels, with a weight and bias per
/// channel (arXiv:1803.08494). As many groups as channels make it InstanceNorm.
pub struct GroupNorm {
    groups: usize,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    eps: f32,
}

impl GroupNorm {
    /// A layer of this weight and bias, `(C,)` each; without them they are ones and zeros.
    pub fn new(groups: usize, weight: Option<Tensor>, bias: Option<Tensor>, eps: f32) -> Self {
        GroupNorm {
            groups,
            weight,
            bias,
            eps,
        }
    }
}

/// Gradients of a norm.
pub struct NormGradients {
    /// By the input, of its shape.
    pub x: Tensor,
    /// By the weight, `(C,)`.
    pub weight: Tensor,
    /// By the bias, `(C,)`; of LayerNorm only.
    pub bias: Option<Tensor>,
}

/// One call of the kernel.
struct Norm<'a> {
    what: &'static str,
    x: &'a Tensor,
    weight: Option<&'a Tensor>,
    bias: Option<&'a Tensor>,
    eps: f32,
    centered: bool,
    /// Rows of x to normalise, and elements of each.
    first: usize,
    rows: usize,
    columns: usize,
    /// Groups and elements of a channel; 1 and 1 but for group norm.
    groups: usize,
    spatial: usize,
    residual: Option<&'a Tensor>,
    sum: Option<&'a Tensor>,
    stats: Option<(&'a Tensor, &'a Tensor)>,
}

impl<'a> Norm<'a> {
    /// RMSNorm over the last `weight.len()` elements of x (its last axes), or the last axis alone.
    fn new(what: &'static str, x: &'a Tensor, weight: Option<&'a Tensor>, eps: f32) -> Self {
        let columns = weight.map_or(x.cols(), Tensor::len);
        Norm {
            what,
            x,
            weight,
            bias: None,
            eps,
            centered: false,
            first: 0,
            rows: x.len().checked_div(columns).unwrap_or(0),
            columns,
            groups: 1,
            spatial: 1,
            residual: None,
            sum: None,
            stats: None,
        }
    }

    fn rms(what: &'static str, x: &'a Tensor, norm: &'a RmsNorm) -> Self {
        Norm::new(what, x, norm.weight.as_ref(), norm.eps)
    }

    fn layer(what: &'static str, x: &'a Tensor, norm: &'a LayerNorm) -> Self {
        Norm {
            bias: norm.bias.as_ref(),
            centered: true,
            ..Norm::new(what, x, norm.weight.as_ref(), norm.eps)
        }
    }

    fn check(&self) -> Result<()> {
        let Norm { what, x, .. } = self;
        let channels = self.groups * (self.columns / self.spatial);
        for (name, vector) in [("weight", self.weight), ("bias", self.bias)] {
            if let Some(vector) = vector.filter(|v| v.len() != channels) {
                return Err(Error::Invalid(format!(
                    "{what}: {name} has shape {:?}, expected {channels} elements",
                    vector.shape
                )));
            }
        }
        let end = (self.first + self.rows) * self.columns;
        if end == 0 || end > x.len() || !x.len().is_multiple_of(self.columns) {
            return Err(Error::Invalid(format!(
                "{what}: x of shape {:?} does not hold {} rows of {} elements",
                x.shape,
                self.first + self.rows,
                self.columns
            )));
        }
        match self.residual.filter(|t| t.shape != x.shape) {
            Some(residual) => Err(Error::Invalid(format!(
                "{what}: residual has shape {:?}, expected {:?}",
                residual.shape, x.shape
            ))),
            None => Ok(()),
        }
    }

    fn push(self, r: &mut Recording) -> Result<Tensor> {
        self.check()?;
        let y = if self.rows * self.columns == self.x.len() {
            r.scratch(DType::F32, &self.x.shape)?
        } else {
            r.scratch(DType::F32, &[self.rows, self.columns])?
        };
        let (mean, rstd) = self.stats.unzip();
        let params = norm::params(self.rows, self.columns, self.eps, self.first)
            .u32("GROUPS", self.groups as u32)
            .u32("SPATIAL", self.spatial as u32)
            .bool("CENTERED", self.centered)
            .bool("WEIGHT", self.weight.is_some())
            .bool("BIAS", self.bias.is_some())
            .bool("RESIDUAL", self.residual.is_some())
            .bool("SUM", self.sum.is_some())
            .bool("MEAN", mean.is_some())
            .bool("RSTD", rstd.is_some());
        let inputs = [Some(self.x), self.weight, self.bias, self.residual];
        let outputs = [Some(&y), self.sum, mean, rstd];
        let bindings = inputs
            .into_iter()
            .chain(outputs)
            .map(Option::<&Tensor>::cloned);
        r.push(&norm::KERNEL, params, bindings.collect())?;
        Ok(y)
    }

    fn backward(self, r: &mut Recording, dy: &Tensor) -> Result<NormGradients> {
        self.check()?;
        if dy.shape != self.x.shape {
            return Err(Error::Invalid(format!(
                "{}: dy has shape {:?}, expected {:?}",
                self.what, dy.shape, self.x.shape
            )));
        }
        let x = r.scratch(DType::F32, &self.x.shape)?;
        let stats = r.scratch(DType::F32, &[self.rows, 2])?;
        let params = norm_backward::params(self.rows, self.columns, self.eps)
            .bool("CENTERED", self.centered)
            .bool("WEIGHT", self.weight.is_some())
            .bool("STATS", true);
        let bindings = [Some(self.x), self.weight, Some(dy), Some(&x), Some(&stats)];
        let bindings = bindings.map(Option::<&Tensor>::cloned);
        r.push(&norm_backward::KERNEL, params, bindings.into())?;
        let shape = self.weight.map_or(vec![self.columns], |w| w.shape.clone());
        let weight = r.scratch(DType::F32, &shape)?;
        let bias = match self.centered {
            true => Some(r.scratch(DType::F32, &shape)?),
            false => None,
        };
        let params = norm_backward_weight::params(self.rows, self.columns, self.centered);
        let bindings = [
            Some(self.x),
            Some(dy),
            Some(&stats),
            Some(&weight),
            bias.as_ref(),
        ];
        let bindings = bindings.map(Option::<&Tensor>::cloned);
        r.push(&norm_backward_weight::KERNEL, params, bindings.into())?;
        Ok(NormGradients { x, weight, bias })
    }
}

impl Recording {
    /// Norm of every row of `x`; a row is as long as the weight, which may span several axes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn rms_norm(&mut self, x: &Tensor, norm: &RmsNorm) -> Result<Tensor> {
        Norm::rms("rms_norm", x, norm).push(self)
    }

    /// Norm of the rows `first .. first + rows` of `x` `(T, C)`.
    ///
    /// # Errors
    ///
    /// As [`Recording::rms_norm`].
    pub fn rms_norm_rows(
        &mut self,
        x: &Tensor,
        norm: &RmsNorm,
        first: usize,
        rows: usize,
    ) -> Result<Tensor> {
        let all = Norm::rms("rms_norm", x, norm);
        Norm { first, rows, ..all }.push(self)
    }

    /// Norm of every row of `x` `(T, C)`.
    ///
    /// # Errors
    ///
    /// As [`Recording::rms_norm`].
    pub fn row_norm(&mut self, x: &Tensor, norm: &RowNorm) -> Result<Tensor> {
        match norm {
            RowNorm::Rms(norm) => self.rms_norm(x, norm),
            RowNorm::Layer(norm) => self.layer_norm(x, norm),
        }
    }

    /// Norm of the rows `first .. first + rows` of `x` `(T, C)`.
    ///
    /// # Errors
    ///
    /// As [`Recording::rms_norm`].
    pub fn row_norm_rows(
        &mut self,
        x: &Tensor,
        norm: &RowNorm,
        first: usize,
        rows: usize,
    ) -> Result<Tensor> {
        match norm {
            RowNorm::Rms(norm) => self.rms_norm_rows(x, norm, first, rows),
            RowNorm::Layer(norm) => {
                let all = Norm::layer("layer_norm", x, norm);
                Norm { first, rows, ..all }.push(self)
            }
        }
    }

    /// `x + residual` and its norm, in one dispatch: (sum, norm), as pre-norm blocks need them.
    ///
    /// # Errors
    ///
    /// As [`Recording::rms_norm`].
    pub fn add_rms_norm(
        &mut self,
        x: &Tensor,
        residual: &Tensor,
        norm: &RmsNorm,
    ) -> Result<(Tensor, Tensor)> {
        let sum = self.scratch(DType::F32, &x.shape)?;
        let alone = Norm::rms("add_rms_norm", x, norm);
        let (residual, written) = (Some(residual), Some(&sum));
        let y = Norm {
            residual,
            sum: written,
            ..alone
        }
        .push(self)?;
        Ok((sum, y))
    }

    /// The norm of `x + residual`, as post-norm blocks need it.
    ///
    /// # Errors
    ///
    /// As [`Recording::rms_norm`].
    pub fn post_rms_norm(
        &mut self,
        x: &Tensor,
        residual: &Tensor,
        norm: &RmsNorm,
    ) -> Result<Tensor> {
        let alone = Norm::rms("post_rms_norm", x, norm);
        let residual = Some(residual);
        Norm { residual, ..alone }.push(self)
    }

    /// Gradients of [`Recording::rms_norm`], given that by its result.
    ///
    /// # Errors
    ///
    /// As [`Recording::rms_norm`].
    pub fn rms_norm_backward(
        &mut self,
        x: &Tensor,
        norm: &RmsNorm,
        dy: &Tensor,
    ) -> Result<NormGradients> {
        Norm::rms("rms_norm_backward", x, norm).backward(self, dy)
    }

    /// Norm of every row of `x`; a row is as long as the weight, which may span several axes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn layer_norm(&mut self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        Norm::layer("layer_norm", x, norm).push(self)
    }

    /// [`Recording::layer_norm`] with each row's mean and `1 / sqrt(var + eps)`: (norm, mean,
    /// rstd), the last two `(rows,)`.
    ///
    /// # Errors
    ///
    /// As [`Recording::layer_norm`].
    pub fn layer_norm_stats(
        &mut self,
        x: &Tensor,
        norm: &LayerNorm,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let alone = Norm::layer("layer_norm", x, norm);
        let mean = self.scratch(DType::F32, &[alone.rows])?;
        let rstd = self.scratch(DType::F32, &[alone.rows])?;
        let stats = Some((&mean, &rstd));
        let y = Norm { stats, ..alone }.push(self)?;
        Ok((y, mean, rstd))
    }

    /// `x + residual` and its norm, in one dispatch: (sum, norm), as pre-norm blocks need them.
    ///
    /// # Errors
    ///
    /// As [`Recording::layer_norm`].
    pub fn add_layer_norm(
        &mut self,
        x: &Tensor,
        residual: &Tensor,
        norm: &LayerNorm,
    ) -> Result<(Tensor, Tensor)> {
        let sum = self.scratch(DType::F32, &x.shape)?;
        let alone = Norm::layer("add_layer_norm", x, norm);
        let (residual, written) = (Some(residual), Some(&sum));
        let y = Norm {
            residual,
            sum: written,
            ..alone
        }
        .push(self)?;
        Ok((sum, y))
    }

    /// The norm of `x + residual`, as post-norm blocks (arXiv:1706.03762) need it.
    ///
    /// # Errors
    ///
    /// As [`Recording::layer_norm`].
    pub fn post_layer_norm(
        &mut self,
        x: &Tensor,
        residual: &Tensor,
        norm: &LayerNorm,
    ) -> Result<Tensor> {
        let alone = Norm::layer("post_layer_norm", x, norm);
        let residual = Some(residual);
        Norm { residual, ..alone }.push(self)
    }

    /// Gradients of [`Recording::layer_norm`], given that by its result.
    ///
    /// # Errors
    ///
    /// As [`Recording::layer_norm`].
    pub fn layer_norm_backward(
        &mut self,
        x: &Tensor,
        norm: &LayerNorm,
        dy: &Tensor,
    ) -> Result<NormGradients> {
        Norm::layer("layer_norm_backward", x, norm).backward(self, dy)
    }

    /// Norm of every group of channels of `x` `(N, C, ...)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit, or the channels are not a multiple of the
    /// groups.
    pub fn group_norm(&mut self, x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
        let [batch, channels, axes @ ..] = x.shape.as_slice() else {
            return Err(Error::Invalid(format!(
                "group_norm: x has shape {:?}, expected (N, C, ...)",
                x.shape
            )));
        };
        if norm.groups == 0 || !channels.is_multiple_of(norm.groups) {
            return Err(Error::Invalid(format!(
                "group_norm: {channels} channels are not a multiple of {} groups",
                norm.groups
            )));
        }
        let spatial = axes.iter().product::<usize>().max(1);
        Norm {
            bias: norm.bias.as_ref(),
            centered: true,
            rows: batch * norm.groups,
            columns: channels / norm.groups * spatial,
            groups: norm.groups,
            spatial,
            ..Norm::new("group_norm", x, norm.weight.as_ref(), norm.eps)
        }
        .push(self)
    }
}
